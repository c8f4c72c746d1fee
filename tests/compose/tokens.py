"""Who gets to the registry, and with what."""

from typing import Final

from tests.compose.daemon import Suite
from tests.compose.machine import say

_CALL: Final = """
import sys, grpc
from cove.registry.v1 import registry_pb2, registry_pb2_grpc
shown = [("cove-service-token", line) for line in sys.stdin.read().split()]
shown += [("cove-principal", "admin"), ("cove-tenant", "default")]
with grpc.insecure_channel("registry:7422") as channel:
    stub = registry_pb2_grpc.RegistryServiceStub(channel)
    try:
        stub.ListEnvironments(registry_pb2.ListEnvironmentsRequest(), metadata=shown, timeout=30)
        print("OK")
    except grpc.RpcError as error:
        print(error.code().name)
"""
_CONNECT: Final = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 7422), 5)
    print("reached")
except OSError as error:
    print(type(error).__name__)
"""


def check_tokens(suite: Suite) -> None:
    """Only who shows the service token gets an answer, and only the gateway can ask at all."""

    def code(shown: str) -> str:
        return suite.inside("gateway", "python", "-c", _CALL, stdin=shown).strip()

    token = suite.inside("gateway", "cat", "/run/secrets/service_token").strip()
    caller = suite.inside("gateway", "cat", "/run/secrets/token").strip()
    given = {"": "", "wrong": "wrong", "callers'": caller, "service": token}
    found = {name: code(shown) for name, shown in given.items()}
    refused = dict.fromkeys(given, "UNAUTHENTICATED")
    assert found == refused | {"service": "OK"}, found
    form = '{{index .NetworkSettings.Networks "cove-test_registry" "IPAddress"}}'
    address = suite.docker("inspect", "-f", form, suite.container("registry")).strip()
    assert suite.inside("gateway", "python", "-c", _CONNECT, address).strip() == "reached"
    for service in ("git", "provider", "executor", "launcher"):
        said = suite.inside(service, "python", "-c", _CONNECT, address).strip()
        assert said != "reached", service
    for service in ("git", "provider", "executor", "launcher"):
        assert suite.inside(service, "sh", "-c", "ls /run/secrets 2>/dev/null || true") == ""
    assert suite.inside("registry", "ls", "/var/lib/cove/registry").split() == [
        *("registry.db", "registry.db-shm", "registry.db-wal", "registry.db.lock")
    ]
    say("over TCP the registry answers who shows the service token, and nobody else reaches it")
