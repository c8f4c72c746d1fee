"""What a real suite tells Prometheus, and that dashboard and alerts ask for nothing else.

No Grafana is here: that its panels draw is not proved, only that what they ask for exists.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.support.suite import SERVICES, Suite

on_the_suite = pytest.mark.asyncio(loop_scope="package")

ROOT: Final = Path(__file__).parent.parent.parent
RULES: Final = ROOT / "deploy" / "prometheus"
DASHBOARD: Final = ROOT / "deploy" / "grafana" / "cove.json"
PROMTOOL: Final = ROOT / ".build" / "prometheus" / "usr" / "bin" / "promtool"

PROMETHEUS: Final = frozenset({"job", "instance", "service"})
"""Labels that a target has in prometheus.yml."""
BOUNDED: Final = {
    *("service", "version", "method", "code", "reason", "state", "driver", "command"),
    *("tool", "node", "le", "queue"),
}
"""Every label that there is: none of what a caller makes up."""

_METRIC: Final = re.compile(r"\b((?:cove|process)_\w+)\s*(?:\{([^}]*)\})?")
_LABEL: Final = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")

Samples = dict[str, list[Sample]]


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def scraped(suite: Suite, admin: Path) -> dict[str, Samples]:
    """By service, after some work of every kind."""
    for status, command in (
        (0, ("create", "--id", "measured")),
        (3, ("exec", "measured", "--", "sh", "-c", "echo x > x; exit 3")),
        (0, ("commit", "measured", "-m", "x")),
        (1, ("show", "nowhere")),
        (0, ("rm", "--force", "measured")),
    ):
        done = await suite.cove(*command)
        assert done.status == status, done.errors
    return {name: await scrape(admin / name) for name in SERVICES}


async def scrape(socket: Path) -> Samples:
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://admin", timeout=30) as http:
        text = (await http.get("/metrics")).text
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        kinds = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        for suffix in kinds.get(family.type, [""]):
            found.setdefault(family.name + suffix, [])
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    return sum(each.value for each in samples[name] if labels.items() <= each.labels.items())


@on_the_suite
async def test_each_service_tells_of_its_calls_and_its_own_work(
    scraped: dict[str, Samples],
) -> None:
    for name, samples in scraped.items():
        assert value(samples, "cove_build_info", service=name) == 1
        assert 0 < value(samples, "cove_disk_used_ratio") < 1
        assert value(samples, "cove_calls_total", code="OK") > 0
        assert value(samples, "process_resident_memory_bytes") > 0
    gateway, executor = scraped["gateway"], scraped["executor"]
    assert value(gateway, "cove_calls_total", code="NOT_FOUND", reason="WORKSPACE_NOT_FOUND") >= 1
    assert value(gateway, "cove_gateway_tool_up", tool="registry") == 1
    assert value(gateway, "cove_gateway_records_followed") == 1
    assert value(executor, "cove_executions_started_total") >= 1
    assert value(executor, "cove_executions_ended_total", reason="code") >= 1
    assert value(scraped["provider"], "cove_sandbox_start_seconds_count", driver="local") >= 1
    assert value(scraped["git"], "cove_git_seconds_count") >= 1
    for name, queues in {"git": 2, "provider": 1, "executor": 1}.items():
        assert len(scraped[name]["cove_queue_waiting"]) == queues
    registry = scraped["registry"]
    assert value(registry, "cove_registry_commit_writes_count") >= 1
    assert value(registry, "cove_registry_writes_total") >= 4
    assert {each.labels["state"] for each in registry["cove_environments"]} >= {"READY", "FAILED"}


@on_the_suite
async def test_labels_are_bounded(scraped: dict[str, Samples]) -> None:
    """Nothing that callers choose is one, so no caller can fill Prometheus."""
    for samples in scraped.values():
        for each in (sample for family in samples.values() for sample in family):
            own = each.labels.keys() - {"implementation", "major", "minor", "patchlevel"}
            assert own <= BOUNDED, each
            assert not [text for text in each.labels.values() if "measured" in text], each
    executor = scraped["executor"]["cove_calls_total"]
    assert {each.labels["method"].split("/")[1] for each in executor} <= {
        "cove.executor.v1.ExecutorService",
        "cove.executor.v1.FileService",
    }


@on_the_suite
async def test_dashboard_and_alerts_ask_for_what_there_is(scraped: dict[str, Samples]) -> None:
    known: dict[str, set[str]] = {}
    for samples in scraped.values():
        for name, found in samples.items():
            labels = known.setdefault(name, set())
            labels.update(label for each in found for label in each.labels)
    known["cove_gateway_node_up"].add("node")  # There is one only, here.
    asked = {*panels(), *alerts()}
    assert len(asked) > 40
    for expression in asked:
        names = _METRIC.findall(expression)
        assert names or expression.startswith("up"), expression
        for name, selector in names:
            assert name in known, expression
            assert {*_LABEL.findall(selector)} <= known[name] | PROMETHEUS, expression
        for by in re.findall(r"by \(([^)]*)\)", expression):
            labels = {label.strip() for label in by.split(",")}
            assert labels <= PROMETHEUS.union(*(known[name] for name, _ in names)), expression


@on_the_suite
async def test_every_metric_is_on_the_page(scraped: dict[str, Samples]) -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    told = {name for samples in scraped.values() for name in samples}
    names = {re.sub("_(bucket|sum|count|created)$", "", name) for name in told}
    assert not {name for name in names - {""} if name not in page and f"{name}_total" not in page}


def test_the_dashboard_is_whole() -> None:
    board = json.loads(DASHBOARD.read_text())
    identities = [panel["id"] for panel in board["panels"]]
    assert len(identities) == len({*identities})
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["type"] == "row" or panel["targets"], panel["title"]
    variables = {each["name"] for each in board["templating"]["list"]}
    used = {*re.findall(r"\$\{?(\w+)", json.dumps([*panels()]))}
    assert used <= variables | {"__rate_interval"}


def test_every_alert_has_a_case() -> None:
    rules = yaml.safe_load((RULES / "alerts.yml").read_text())
    cases = yaml.safe_load((RULES / "alerts.test.yml").read_text())
    named = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    fired = {
        each["alertname"]
        for case in cases["tests"]
        for each in case["alert_rule_test"]
        if each["exp_alerts"]
    }
    assert sorted(named) == sorted(fired)
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("critical", "warning", "info")
            assert {"summary", "description"} == rule["annotations"].keys()


def test_promtool_finds_the_files_right() -> None:
    promtool = shutil.which("promtool") or (str(PROMTOOL) if PROMTOOL.exists() else "")
    if not promtool:
        pytest.skip("no promtool: apt-get install prometheus, or let .ci/run unpack it in .build/")
    for arguments in (
        ("check", "rules", "alerts.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "alerts.test.yml"),
    ):
        done = subprocess.run(
            [promtool, *arguments], cwd=RULES, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr


def panels() -> Iterator[str]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]


def alerts() -> Iterator[str]:
    rules: Any = yaml.safe_load((RULES / "alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]
