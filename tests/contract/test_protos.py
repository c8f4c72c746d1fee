"""What every proto of the suite promises, read from the descriptors that are served."""

import importlib
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.options.v1 import options_pb2

ROOT = Path(__file__).parents[2]
PACKAGES = ["registry", "git", "provider", "executor", "gateway"]
BESIDE = ("access", "audit")
"""Files of the registry's other services."""
IdempotencyLevel = descriptor_pb2.MethodOptions.IdempotencyLevel


def services() -> list[ServiceDescriptor]:
    modules = [importlib.import_module(f"cove.{name}.v1.{name}_pb2") for name in PACKAGES]
    modules += [importlib.import_module(f"cove.registry.v1.{name}_pb2") for name in BESIDE]
    return [s for m in modules for s in m.DESCRIPTOR.services_by_name.values()]


NOT_OVER_HTTP = {"ForwardPort"}
"""Bytes both ways, for which HTTP has no form that clients share; `cove forward` makes a port."""
METHODS = [method for service in services() for method in service.methods]


def test_every_service_is_there() -> None:
    assert sorted(s.full_name for s in services()) == [
        "cove.executor.v1.ExecutorService",
        "cove.executor.v1.FileService",
        "cove.gateway.v1.AccessService",
        "cove.gateway.v1.AuditService",
        "cove.gateway.v1.ExecutionService",
        "cove.gateway.v1.FileService",
        "cove.gateway.v1.SourceService",
        "cove.gateway.v1.WorkspaceService",
        "cove.git.v1.GitService",
        "cove.provider.v1.ProviderService",
        "cove.registry.v1.AccessService",
        "cove.registry.v1.AuditService",
        "cove.registry.v1.RegistryService",
    ]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.full_name)
def test_every_rpc_says_who_may_call_it_and_whether_it_may_be_retried(
    method: MethodDescriptor,
) -> None:
    options = method.GetOptions()
    access = options.Extensions[options_pb2.access]
    assert access.role != options_pb2.ROLE_UNSPECIFIED
    assert options.idempotency_level != IdempotencyLevel.IDEMPOTENCY_UNKNOWN
    inside = method.full_name.split(".")[1] != "gateway"
    assert (access.role == options_pb2.ROLE_SERVICE) == inside


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.full_name)
def test_every_mutator_takes_a_request_id(method: MethodDescriptor) -> None:
    options = method.GetOptions()
    if options.idempotency_level == IdempotencyLevel.NO_SIDE_EFFECTS:
        return
    fields = set(method.input_type.fields_by_name)
    header = method.input_type.fields_by_name.get("header")
    if header is not None and header.message_type is not None:
        fields |= set(header.message_type.fields_by_name)
    if method.name == "Attach":  # Each part of its stream is one of other RPCs.
        fields |= set(method.input_type.nested_types_by_name["Input"].fields_by_name)
    # Leases carry their fencing token, activation its handle, input how many bytes are before
    # it, entries their ids, packs a commit, counting anew changes nothing that is right: all
    # idempotent by it.
    known = {"request_id", "fencing_token", "handle", "offset", "entries", "dry_run"}
    known.add("prerequisites")
    assert fields & known, method.full_name


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.full_name)
def test_every_rpc_for_callers_has_an_http_path(method: MethodDescriptor) -> None:
    if not method.full_name.startswith("cove.gateway.") or method.name in NOT_OVER_HTTP:
        return
    http = method.GetOptions().Extensions[annotations_pb2.http]
    assert http.WhichOneof("pattern") is not None


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.full_name)
def test_every_rpc_has_messages_of_its_own(method: MethodDescriptor) -> None:
    assert method.input_type.name == f"{method.name}Request"
    assert method.output_type.name == f"{method.name}Response"


def test_every_reason_is_named_by_an_rpc() -> None:
    of_all = {
        "UNSPECIFIED",
        *("UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_FIELD", "MESSAGE_TOO_LARGE"),
        *("INTERNAL", "SERVICE_UNAVAILABLE", "SHUTTING_DOWN", "DEADLINE_EXCEEDED"),
        *("MALFORMED_JSON", "ROUTE_NOT_FOUND"),  # Only over HTTP.
        *("SHARE_LIMITED", "AUTHENTICATION_LIMIT", "RATE_LIMITED", "OVERLOADED"),
        "REQUEST_IN_PROGRESS",  # Sent no more.
    }
    texts = [file.read_text() for file in (ROOT / "protos").rglob("*.proto")]
    named = {name for text in texts for name in re.findall(r", ERROR_REASON_(\w+):", text)}
    reasons = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.DESCRIPTOR.values_by_name}
    assert reasons - named - of_all == set()


OTHER_COPY = """
    import sys
    sys.path.insert(0, {other!r})
    {first}
    from buf.validate import validate_pb2
    from cove.gateway.v1 import gateway_pb2
    import protovalidate
    assert validate_pb2.__file__.startswith({origin!r}), validate_pb2.__file__
    request = gateway_pb2.GetWorkspaceRequest(name="not a name")
    try:
        protovalidate.validate(request)
    except protovalidate.ValidationError:
        print("validated")
"""


@pytest.mark.parametrize("regular", [False, True], ids=["namespace", "regular package"])
@pytest.mark.parametrize("ours_first", [False, True], ids=["theirs first", "ours first"])
def test_our_buf_validate_lives_beside_another_packages_copy(
    tmp_path: Path, regular: bool, ours_first: bool
) -> None:
    """Another distribution brings buf/validate/validate_pb2.py too, as many do."""
    ours = ROOT / "sdk" / "src"
    theirs = tmp_path / "other"
    (theirs / "buf" / "validate").mkdir(parents=True)
    text = (ours / "buf" / "validate" / "validate_pb2.py").read_text()
    (theirs / "buf" / "validate" / "validate_pb2.py").write_text(text + "\nTHEIRS = True\n")
    if regular:
        (theirs / "buf" / "__init__.py").touch()
        (theirs / "buf" / "validate" / "__init__.py").touch()
    first = f"sys.path.insert(0, {str(ours)!r})" if ours_first else ""
    # A regular package is found before any namespace portion on the whole path.
    origin = ours if ours_first and not regular else theirs
    script = textwrap.dedent(OTHER_COPY).format(other=str(theirs), first=first, origin=str(origin))
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PATH": os.defpath},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "validated\n", done.stderr
