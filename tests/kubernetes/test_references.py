"""What schemas cannot say: that each thing another one names is there, and is what is meant."""

import re
import tomllib
from typing import Any, Final

import pytest

from tests.kubernetes.manifests import (
    FOLDER,
    ROOT,
    WAYS,
    WORKLOADS,
    Pod,
    of_kind,
    pods,
    rendered,
    selects,
)

VERSION: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
IMAGES: Final = {
    f"cove-{name}" for name in ("registry", "gateway", "launcher", "git", "provider", "executor")
}
GUIDE: Final = ROOT / "docs" / "kubernetes.md"
FIRST: Final = 5.0
"""Seconds that preStop waits."""


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def secrets(pod: Pod) -> set[tuple[str, str, str]]:
    """Namespace, name and key of what it reads."""
    found = set()
    mounted: dict[str, list[str]] = {}
    for container in pod.containers:
        for mount in container.get("volumeMounts", []):
            mounted.setdefault(mount["name"], []).append(mount["mountPath"])
        for each in container.get("env", []):
            if reference := each.get("valueFrom", {}).get("secretKeyRef"):
                found.add((pod.namespace, reference["name"], reference["key"]))
    text = str([each.get("env", []) for each in pod.containers])
    for volume in pod.spec["volumes"]:
        if name := volume.get("secret", {}).get("secretName"):
            for path in mounted[volume["name"]]:
                for file in re.findall(rf"{path}/([\w.-]+)", text):
                    found.add((pod.namespace, name, file))
    return found


def documented() -> set[tuple[str, str, str]]:
    """Secrets that the guide says how to make."""
    found = set()
    services = [""]
    for line in GUIDE.read_text().splitlines():
        if loop := re.fullmatch(r"for each in ([a-z ]+); do", line):
            services = loop[1].split()
        elif line == "done":
            services = [""]
        for namespace, name, files in re.findall(
            r"kubectl -n (\S+) create secret generic (\S+) (.*)", line
        ):
            keys = re.findall(r"--from-file=([\w.-]+)=", files)
            names = [name.replace("$each", each) for each in services]
            found |= {(namespace, each, key) for each in names for key in keys}
    return found


def test_selectors_select_their_own_pods_and_no_others(way: str) -> None:
    made = pods(way)
    for each in of_kind(way, *WORKLOADS):
        selector, name = each["spec"]["selector"], each["metadata"]["name"]
        assert [pod.name for pod in made.values() if selects(selector, pod.labels)] == [name]
    for each in of_kind(way, "Service", "PodDisruptionBudget", "NetworkPolicy"):
        kind, meta, spec = each["kind"], each["metadata"], each["spec"]
        selector = {"matchLabels": spec["selector"]} if kind == "Service" else None
        selector = selector or spec.get("selector") or spec["podSelector"]
        found = [
            pod.name
            for pod in made.values()
            if pod.namespace == meta["namespace"] and selects(selector, pod.labels)
        ]
        wanted = {"cove-nodes": "cove-node"}.get(meta["name"], meta["name"])
        assert found == [wanted] or meta["name"] == "nobody", meta


def test_ports_that_are_named_are_there(way: str) -> None:
    made = pods(way)
    for each in of_kind(way, "Service"):
        (pod,) = (
            pod for pod in made.values() if each["spec"]["selector"].items() <= pod.labels.items()
        )
        for port in each["spec"]["ports"]:
            assert pod.ports[port["targetPort"]] == port["port"]
    for pod in made.values():
        listened = [port for each in pod.containers for port in each.get("ports", [])]
        assert len({port["containerPort"] for port in listened}) == len(listened)


def test_volumes_accounts_and_targets_are_there(way: str) -> None:
    accounts = {
        (each["metadata"]["namespace"], each["metadata"]["name"])
        for each in of_kind(way, "ServiceAccount")
    }
    claims = {each["metadata"]["name"] for each in of_kind(way, "PersistentVolumeClaim")}
    made = pods(way)
    assert accounts == {(pod.namespace, pod.spec["serviceAccountName"]) for pod in made.values()}
    for each in of_kind(way, *WORKLOADS):
        pod = made[each["metadata"]["name"]]
        own = {claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])}
        there = {volume["name"] for volume in pod.spec["volumes"]} | own
        used = {m["name"] for c in pod.containers for m in c.get("volumeMounts", [])}
        assert used == there, pod.name
        for volume in pod.spec["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                assert claim["claimName"] in claims
            assert "configMap" not in volume  # There is none; one would have to be found here.
    for each in of_kind(way, "HorizontalPodAutoscaler"):
        target = each["spec"]["scaleTargetRef"]
        (scaled,) = (
            other for other in of_kind(way, target["kind"])
            if other["metadata"]["name"] == target["name"]
        )  # fmt: skip
        assert "replicas" not in scaled["spec"]  # Each apply would undo what it did.
        assert each["metadata"]["namespace"] == scaled["metadata"]["namespace"]
        for container in made[target["name"]].containers:
            assert container["resources"]["requests"]["cpu"]


def test_namespaces_are_there(way: str) -> None:
    spaces = {each["metadata"]["name"] for each in of_kind(way, "Namespace")}
    for each in rendered(way):
        if each["kind"] != "Namespace":
            assert each["metadata"]["namespace"] in spaces
    for each in of_kind(way, "NetworkPolicy"):
        for name in re.findall(r"'kubernetes.io/metadata.name': '([\w-]+)'", str(each)):
            assert name in spaces | {"kube-system"}


def test_secrets_are_those_that_the_guide_makes() -> None:
    wanted = set().union(*(secrets(pod) for way in WAYS for pod in pods(way).values()))
    assert wanted == documented()
    for way in WAYS:
        assert of_kind(way, "Secret") == []  # Made by who installs it, kept nowhere.


def test_secrets_are_closed_to_others(way: str) -> None:
    """Those of a process that is not root are its group's, as it cannot own them."""
    for pod in pods(way).values():
        group = pod.spec["securityContext"].get("fsGroup")
        for volume in pod.spec["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == (0o440 if group else 0o400)


def test_images_are_those_that_are_built_of_this_version(way: str) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    found = {each["image"] for pod in pods(way).values() for each in pod.containers}
    assert {each for each in found if each.startswith("cove-")} == {
        f"{name}:{VERSION}" for name in IMAGES
    }
    for name in IMAGES:
        assert f" AS {name.removeprefix('cove-')}\n" in dockerfile
    compose = (ROOT / "docker-compose.yml").read_text()
    others = {each for each in found if not each.startswith("cove-")}
    assert others <= {*re.findall(r"COVE_POSTGRES_IMAGE:-([^}]+)", compose)}


def test_containers_end_before_they_are_killed(way: str) -> None:
    """Of services that wait before they stop, and then let calls end."""
    for pod in pods(way).values():
        needed = 0.0
        for each in pod.containers:
            sleep: Any = each.get("lifecycle", {}).get("preStop", {}).get("sleep")
            if sleep:
                assert sleep["seconds"] >= FIRST
                needed = max(needed, sleep["seconds"] + 10)
        assert pod.spec["terminationGracePeriodSeconds"] > needed + 5


def test_an_apply_ends_no_sandbox(way: str) -> None:
    (daemons,) = of_kind(way, "DaemonSet")
    assert daemons["spec"]["updateStrategy"] == {"type": "OnDelete"}


def test_nothing_private_is_in_the_folder() -> None:
    for path in FOLDER.rglob("*"):
        if path.is_file():
            assert not re.search(r"BEGIN .*KEY|stringData", path.read_text()), path
