"""What the gateway tells of itself, looked up when it is asked for."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.memory import Memory
from gateway.nodes import Nodes
from gateway.operations import Operations
from gateway.readiness import Readiness
from gateway.reconcile import Reconciler
from gateway.trail import Trail
from servicekit.metrics import gauge


def collected(
    *,
    operations: Operations,
    memory: Memory,
    trail: Trail,
    reconciler: Reconciler,
    readiness: Readiness,
    nodes: Nodes,
) -> CollectorRegistry:
    registry = CollectorRegistry()
    for name, text, value in (
        (
            "operations",
            "Operations on workspaces that this gateway is at.",
            lambda: operations.going_on,
        ),
        (
            "records_followed",
            "1 while reads are answered from what was read before.",
            lambda: memory.follows,
        ),
        (
            "audit_unsent",
            "Entries of the audit log that the registry does not have.",
            lambda: trail.unsent,
        ),
        (
            "reconcile_time_seconds",
            "When all records were last looked through, in seconds since 1970.",
            lambda: reconciler.looked,
        ),
    ):
        gauge(registry, f"cove_gateway_{name}", text, value)
    registry.register(
        _Answers("cove_gateway_tool_up", "1 while the tool answers.", "tool", readiness.told)
    )
    registry.register(
        _Answers(
            "cove_gateway_node_up",
            "1 while the node answers. Where there is one only, it is not told.",
            "node",
            lambda: {each.name: each.answers for each in nodes.told()},
        )
    )
    return registry


class _Answers(Collector):
    """One number for each of some that come and go."""

    def __init__(
        self, name: str, text: str, label: str, told: Callable[[], Mapping[str, bool]]
    ) -> None:
        self._name = name
        self._text = text
        self._label = label
        self._told = told

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(self._name, self._text, labels=[self._label])
        for name, answers in self._told().items():
            family.add_metric([name], float(answers))
        yield family
