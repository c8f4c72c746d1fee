"""What containers may do: as little as in docker-compose.yml, and what their namespace allows."""

from typing import Any, Final

import pytest
import yaml

from tests.kubernetes.manifests import ROOT, WAYS, Object, Pod, of_kind, pods

COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())[
    "services"
]
LEVEL: Final = "pod-security.kubernetes.io/enforce"
RESTRICTED_VOLUMES: Final = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
    *("persistentVolumeClaim", "projected", "secret"),
}
ON_THE_HOST: Final = {"state": "/var/lib/cove", "cgroup": "/sys/fs/cgroup"}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def forbidden(pod: Pod) -> list[str]:
    """What the level `restricted` of the Pod Security Standards has against it, for Linux."""
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(key)]
    for volume in pod.spec["volumes"]:
        found += [*(volume.keys() - {"name"} - RESTRICTED_VOLUMES)]
    for each in pod.containers:
        own = {**pod.spec.get("securityContext", {}), **each.get("securityContext", {})}
        capabilities = own.get("capabilities", {})
        found += capabilities.get("add", [])
        right = {
            "drop": "ALL" in capabilities.get("drop", []),
            "runAsNonRoot": own.get("runAsNonRoot") is True,
            "runAsUser": own.get("runAsUser") != 0,
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "seccomp": own.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "privileged": not own.get("privileged"),
            "procMount": own.get("procMount", "Default") == "Default",
            "hostPort": not any(port.get("hostPort") for port in each.get("ports", [])),
            "appArmor": own.get("appArmorProfile", {}).get("type") != "Unconfined",
        }
        found += [key for key, fine in right.items() if not fine]
    return found


def levels(way: str) -> dict[str, str]:
    return {
        each["metadata"]["name"]: each["metadata"]["labels"][LEVEL]
        for each in of_kind(way, "Namespace")
    }


def test_namespaces_allow_what_is_in_them_and_no_more(way: str) -> None:
    assert levels(way) == {"cove": "restricted", "cove-nodes": "privileged"}
    for pod in pods(way).values():
        against = forbidden(pod)
        assert bool(against) == (levels(way)[pod.namespace] == "privileged"), (pod.name, against)


def test_a_node_has_the_rights_of_the_containers(way: str) -> None:
    """Which docker-compose.yml gives a reason for, one by one."""
    node = pods(way)["cove-node"]
    for name in ("launcher", "egress", "git", "provider", "executor"):
        context, compose = node.container(name)["securityContext"], COMPOSE[name]
        options = compose["security_opt"]
        assert {*context["capabilities"].get("add", [])} == {*compose.get("cap_add", [])}, name
        unconfined = {
            option.partition("=")[0] for option in options if option.endswith("=unconfined")
        }
        given = {
            word
            for word, key in (("seccomp", "seccompProfile"), ("apparmor", "appArmorProfile"))
            if context.get(key, {}).get("type") == "Unconfined"
        }
        assert given == unconfined, name
    assert not node.container("prepare")["securityContext"]["capabilities"].get("add")
    assert {
        volume["name"]: volume["hostPath"]["path"]
        for volume in node.spec["volumes"]
        if "hostPath" in volume
    } == ON_THE_HOST
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        assert not node.spec.get(key)  # Also of compose's `pid: host` there is no need here.
    assert node.spec["shareProcessNamespace"] is True


def test_only_who_makes_or_limits_groups_sees_them(way: str) -> None:
    node = pods(way)["cove-node"]
    for each in node.containers:
        paths = {mount["mountPath"] for mount in each.get("volumeMounts", [])}
        assert ("/sys/fs/cgroup" in paths) == (each["name"] in ("launcher", "executor"))


def test_all_are_narrow(way: str) -> None:
    for pod in pods(way).values():
        assert pod.spec["automountServiceAccountToken"] is False
        for each in pod.containers:
            context: Object = each["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"]["drop"] == ["ALL"]
            assert each["resources"]["limits"]["memory"], each["name"]
            assert "cpu" not in each["resources"]["limits"]
            assert {"cpu", "memory"} == each["resources"]["requests"].keys()
    for each in of_kind(way, "ServiceAccount"):
        assert each["automountServiceAccountToken"] is False


def test_what_is_kept_in_memory_has_a_bound(way: str) -> None:
    for pod in pods(way).values():
        for volume in pod.spec["volumes"]:
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"], (pod.name, volume["name"])
