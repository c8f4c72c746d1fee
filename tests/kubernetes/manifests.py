"""What `kubectl apply -k` would send, as objects."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parent.parent.parent
FOLDER: Final = ROOT / "deploy" / "kubernetes"
BASE, MTLS, SINGLE = "base", "overlays/mtls", "overlays/single"
WAYS: Final = (BASE, MTLS, SINGLE)
"""To install it."""
WORKLOADS: Final = ("Deployment", "StatefulSet", "DaemonSet")

Object = Mapping[str, Any]


@cache
def rendered(way: str) -> tuple[Object, ...]:
    """All objects of a base or overlay; skips the test where no kustomize is."""
    text = subprocess.run(
        [*_kustomize(), str(FOLDER / way)], check=True, capture_output=True, text=True
    ).stdout
    return tuple(each for each in yaml.safe_load_all(text) if each)


def _kustomize() -> list[str]:
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    pytest.skip("neither kubectl nor kustomize is on this machine: deploy/kubernetes was not tried")


@dataclass(frozen=True, slots=True)
class Pod:
    """What a workload makes."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    spec: Object

    @property
    def containers(self) -> Iterator[Object]:
        """All, in the order of their start."""
        yield from self.spec.get("initContainers", [])
        yield from self.spec["containers"]

    def container(self, name: str) -> Object:
        return next(each for each in self.containers if each["name"] == name)

    def volume(self, name: str) -> Object:
        found: Object = next(each for each in self.spec["volumes"] if each["name"] == name)
        return found

    @property
    def ports(self) -> dict[str, int]:
        return {
            port["name"]: port["containerPort"]
            for each in self.containers
            for port in each.get("ports", [])
        }


def of_kind(way: str, *kinds: str) -> list[Object]:
    return [each for each in rendered(way) if each["kind"] in kinds]


def pods(way: str) -> dict[str, Pod]:
    """By the name of their workload."""
    found = {}
    for each in of_kind(way, *WORKLOADS):
        meta, template = each["metadata"], each["spec"]["template"]
        labels = template["metadata"]["labels"]
        found[meta["name"]] = Pod(meta["namespace"], meta["name"], labels, template["spec"])
    return found


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector, without expressions, which none here has, fits."""
    assert not selector.keys() - {"matchLabels"}, selector
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def variables(container: Object) -> dict[str, str]:
    """Those of a container; what a kubelet fills in is named after where it comes from."""
    found = {}
    for each in container.get("env", []):
        source = each.get("valueFrom", {})
        filled = next((next(iter(field.values())) for field in source.values()), "")
        found[each["name"]] = each.get("value", f"<{filled}>")
    return found


def injected(services: list[Object]) -> dict[str, str]:
    """What a kubelet tells the containers of a namespace of its services, unless they have no
    address of their own: as `enableServiceLinks`, on unless it is turned off, has it."""
    found: dict[str, str] = {}
    for number, service in enumerate(services, start=1):
        if service["spec"].get("clusterIP") == "None":
            continue
        host = f"10.96.0.{number}"
        name = service["metadata"]["name"].upper().replace("-", "_")
        ports = service["spec"]["ports"]
        found |= {f"{name}_SERVICE_HOST": host, f"{name}_SERVICE_PORT": str(ports[0]["port"])}
        for port in ports:
            if port.get("name"):
                key = port["name"].upper().replace("-", "_")
                found[f"{name}_SERVICE_PORT_{key}"] = str(port["port"])
        for index, port in enumerate(ports):
            protocol = port.get("protocol", "TCP")
            url = f"{protocol.lower()}://{host}:{port['port']}"
            prefix = f"{name}_PORT_{port['port']}_{protocol}"
            found |= {} if index else {f"{name}_PORT": url}
            found |= {
                prefix: url,
                f"{prefix}_PROTO": protocol.lower(),
                f"{prefix}_PORT": str(port["port"]),
                f"{prefix}_ADDR": host,
            }
    return found
