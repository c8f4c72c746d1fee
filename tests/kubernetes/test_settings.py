"""Variables and probes are settings and services of the process that they are given to."""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pytest

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2
from cove.git.v1 import git_pb2
from cove.provider.v1 import provider_pb2
from cove.registry.v1 import access_pb2, audit_pb2, registry_pb2
from gateway.config import Config as Gateway
from servicekit.config import ConfigError, ServerConfig, from_env, variable
from services.executor.config import Config as Executor
from services.git.config import Config as Git
from services.provider.config import Config as Provider
from services.registry.config import Config as Registry
from tests.kubernetes.manifests import (
    BASE,
    MTLS,
    WAYS,
    Object,
    Pod,
    injected,
    of_kind,
    pods,
    variables,
)

CONFIGS: Final[Mapping[str, type[ServerConfig]]] = {
    each.service: each for each in (Registry, Gateway, Git, Provider, Executor)
}
OF_THE_CLIENT: Final = {"gateway": {"COVE_ADDRESS"}}
OF_LIBRARIES: Final = {"registry": {"PGPASSWORD"}}
PODS: Final = {"registry": "cove-registry", "gateway": "cove-gateway"}
SERVED: Final = {
    "registry": (registry_pb2, access_pb2, audit_pb2),
    "gateway": (gateway_pb2,),
    "git": (git_pb2,),
    "provider": (provider_pb2,),
    "executor": (executor_pb2,),
}
COMBINATIONS: Final = [*itertools.product(WAYS, CONFIGS)]


def found(way: str, name: str) -> tuple[Pod, Object]:
    pod = pods(way)[PODS.get(name, "cove-node")]
    return pod, pod.container(name)


def links(way: str, namespace: str) -> dict[str, str]:
    return injected(
        [each for each in of_kind(way, "Service") if each["metadata"]["namespace"] == namespace]
    )


@pytest.mark.parametrize(("way", "name"), COMBINATIONS)
def test_variables_are_settings_of_the_process(way: str, name: str) -> None:
    pod, container = found(way, name)
    cls, given = CONFIGS[name], variables(container)
    known = {variable(cls, each) for each in fields(cls)} | OF_THE_CLIENT.get(name, set())
    assert given.keys() <= known | OF_LIBRARIES.get(name, set())
    config = from_env(cls, given | links(way, pod.namespace))
    # Files that it is told of are where something is mounted, and folders can be written to.
    mounts = {each["mountPath"]: each.get("readOnly", False) for each in container["volumeMounts"]}
    given_fields = [each.name for each in fields(cls) if variable(cls, each) in given]
    paths = [getattr(config, name) for name in given_fields]
    for path in (each for each in paths if isinstance(each, Path)):
        (at,) = {str(above) for above in (path, *path.parents)} & mounts.keys()
        assert mounts[at] == at.startswith("/run/secrets/")
    # Where it listens is what its ports say.
    told = [*config.addresses, config.http if isinstance(config, Gateway) else ""]
    tcp = {each.rpartition(":")[2] for each in told if each and not each.startswith("unix:")}
    assert tcp == {str(port["containerPort"]) for port in container["ports"]}


@pytest.mark.parametrize("name", CONFIGS)
def test_variables_that_a_pod_is_given_are_harmless(name: str) -> None:
    """Those of these services, and of any that somebody may name after a process of ours."""
    _, container = found(BASE, name)
    cls, given = CONFIGS[name], variables(container)
    plain = from_env(cls, given)
    every: list[Object] = of_kind(BASE, "Service")
    for word in ("cove", "cove-token", *(f"cove-{each}" for each in (*CONFIGS, "launcher"))):
        ports = [
            {"port": 7501, "name": port, "protocol": protocol}
            for port, protocol in (("grpc", "TCP"), ("a-b", "UDP"), ("address", "SCTP"))
        ]
        every.append(
            {"metadata": {"name": word}, "spec": {"clusterIP": "10.0.0.1", "ports": ports}}
        )
    told = injected(every)
    assert f"COVE_{name.upper()}_PORT" in told
    assert f"COVE_{name.upper()}_SERVICE_PORT_ADDRESS" in told
    assert f"COVE_{name.upper()}_PORT_7501_SCTP_ADDR" in told
    assert not told.keys() & given.keys()
    assert from_env(cls, given | told) == plain
    with pytest.raises(ConfigError, match="unknown"):  # What is meant is still looked at.
        from_env(cls, given | told | {f"COVE_{name.upper()}__ADRESS": "0.0.0.0:1"})


def test_one_side_says_what_the_other_does() -> None:
    for way in WAYS:
        gateway = from_env(Gateway, variables(found(way, "gateway")[1]))
        (nodes,) = (
            each for each in of_kind(way, "Service") if each["spec"].get("clusterIP") == "None"
        )
        meta = nodes["metadata"]
        assert gateway.nodes == (f"dns:{meta['name']}.{meta['namespace']}.svc",)
        ports = {each["name"]: each["port"] for each in nodes["spec"]["ports"]}
        for name in ("git", "provider", "executor"):
            assert gateway.at(name, "10.0.0.1") == f"10.0.0.1:{ports[name]}"
        registry = next(
            each for each in of_kind(way, "Service")
            if each["metadata"]["name"] == gateway.registry.partition(":")[0]
        )  # fmt: skip
        assert gateway.registry.endswith(f":{registry['spec']['ports'][0]['port']}")
        assert registry["metadata"]["namespace"] == found(way, "gateway")[0].namespace
        node = pods(way)["cove-node"]
        launcher, executor = (variables(node.container(n)) for n in ("launcher", "executor"))
        assert launcher["NODE"] == executor["COVE_EXECUTOR__NODE"] == "<spec.nodeName>"
        for key in ("COVE_STATE", "COVE_RUNTIME"):
            told = [variables(node.container(n))[key] for n in ("launcher", "git", "provider")]
            assert {*told} == {executor[key]}
            assert launcher["COVE_RUNTIME"] in str(node.container("egress")["command"])


def test_with_tls_each_knows_the_other_by_its_name() -> None:
    gateway = from_env(Gateway, variables(found(MTLS, "gateway")[1]))
    certificates = (
        Path(__file__).parents[2] / "deploy/kubernetes/overlays/mtls/certificates"
    ).read_text()
    assert "URI:spiffe://cove/$name" in certificates
    for name in ("registry", "git", "provider", "executor"):
        config = from_env(CONFIGS[name], variables(found(MTLS, name)[1]))
        assert config.peers == ("spiffe://cove/gateway",)
        assert gateway.id_of(name, "10.0.0.1") == f"spiffe://cove/{name}"
        assert re.search(rf"for name in [a-z ]*\b{name}\b", certificates)


def probes(container: Object) -> Iterator[tuple[str, Any]]:
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        if kind in container:
            yield kind, container[kind]


@pytest.mark.parametrize(("way", "name"), COMBINATIONS)
def test_probes_ask_services_that_are_there(way: str, name: str) -> None:
    container = found(way, name)[1]
    services = {
        f"{module.DESCRIPTOR.package}.{service}"
        for module in SERVED[name]
        for service in module.DESCRIPTOR.services_by_name
    }
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {kind for kind, _ in probes(container)} == {
        *("startupProbe", "readinessProbe", "livenessProbe")
    }
    for kind, probe in probes(container):
        if "grpc" in probe:
            assert probe["grpc"]["port"] in ports.values()
            assert probe["grpc"].get("service", "") in {"", *services}
            assert probe["timeoutSeconds"] >= 5  # One second, the default, is a busy machine's.
        elif "exec" in probe:
            config = from_env(CONFIGS[name], variables(container))
            assert probe["exec"]["command"][-1] in config.addresses
            assert probe["exec"]["command"][:2] == ["python", "/opt/cove/healthy.py"]
        else:
            assert probe["httpGet"]["port"] in ports
            assert probe["httpGet"]["path"] == "/healthz"
            assert kind != "readinessProbe"  # /healthz says that it lives, not that it is ready.
    # Of the gateway what gRPC says depends on others: it must not be killed for that.
    assert "grpc" not in container["livenessProbe"] or name != "gateway"


def test_nobody_kills_a_launcher() -> None:
    for way in WAYS:
        node = pods(way)["cove-node"]
        for name in ("launcher", "egress"):
            assert "livenessProbe" not in node.container(name)
            assert node.container(name)["restartPolicy"] == "Always"
        # It begins before the services, and ends after them, as sidecars do.
        first = [each["name"] for each in node.spec["initContainers"]]
        assert first == ["prepare", "launcher", "egress"]
