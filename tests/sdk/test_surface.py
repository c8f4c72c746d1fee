"""The blocking client has what the async one has, name by name and parameter by parameter."""

import inspect
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Mapping
from types import GenericAlias
from typing import Any, assert_type, get_args, get_origin

import cove
from cove import (
    attachment,
    client,
    executions,
    files,
    forwarding,
    snapshots,
    source,
    sync,
    tenant,
    tokens,
    workspace,
    workspaces,
)
from cove.executor.v1.executor_pb2 import File
from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from cove.output import Event

FACADES: Mapping[type, type] = {
    client.Client: sync.Client,
    workspaces.Workspaces: sync.Workspaces,
    workspace.Workspace: sync.Workspace,
    executions.Executions: sync.Executions,
    executions.Execution: sync.Execution,
    attachment.Attachment: sync.Attachment,
    files.Files: sync.Files,
    source.Source: sync.Source,
    snapshots.Snapshots: sync.Snapshots,
    tenant.Tenant: sync.Tenant,
    tokens.Tokens: sync.Tokens,
    forwarding.Forward: sync.Forward,
}


async def test_both_clients_have_the_same_surface(address: str) -> None:
    async with client.Client(address) as theirs:
        with sync.Client(address) as ours:
            for kind, other in zip(_objects(theirs), _objects(ours), strict=True):
                assert FACADES[type(kind)] is type(other)
                assert _public(kind) == _public(other)
                for name in _public(kind):
                    _assert_same(name, kind, other)


def test_both_clients_are_made_of_the_same_arguments() -> None:
    assert inspect.signature(client.Client) == inspect.signature(sync.Client)


def test_every_name_of_the_package_is_there_when_it_is_asked_for() -> None:
    names = set(dir(cove)) - set(vars(cove))
    assert {"Client", "Chunk", "CommandFailed", "CoveError", "NotFound"} <= names
    kinds = {kind.__name__ for kind in cove.CoveError.__subclasses__()}
    assert kinds <= names
    assert all(getattr(cove, name).__name__ == name for name in names)
    told = inspect.getsource(cove)
    assert all(f" import {name} as {name}\n" in told for name in names)


def test_the_package_alone_loads_no_client() -> None:
    program = "import sys, cove; print([name for name in sys.modules if name.startswith('grpc')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


def _types(client: sync.Client) -> None:
    """Not run: what a type checker sees."""
    workspace = client.workspaces.create("file:///r", id="demo")
    assert_type(workspace, sync.Workspace)
    assert_type(workspace.execute("true", timeout=1), cove.Result)
    assert_type(workspace.start("true"), sync.Execution)
    assert_type(workspace.stream("true"), Generator[Event, None, None])
    assert_type(workspace.read("f"), bytes)
    assert_type(workspace.files.write("f", "text"), File)
    assert_type(workspace.fork("other"), sync.Workspace)
    assert_type(workspace.snapshots.create("s"), pb.Snapshot)
    assert_type(workspace.status(), git_pb2.WorktreeStatus)
    assert_type(workspace.delete(), pb.Workspace | None)
    assert_type(client.workspaces.list(), Generator[sync.Workspace, None, None])
    assert_type(workspace.executions.list(), Generator[sync.Execution, None, None])
    workspace.execute("true", no_such_parameter=1)  # type: ignore[call-arg]
    workspace.read(1)  # type: ignore[arg-type]


def _objects(cove: Any) -> list[Any]:
    """One of each kind."""
    demo = cove.workspaces.named("demo")
    execution = demo.executions.named("e")
    parts = [demo.executions, execution, demo.files, demo.source, demo.snapshots]
    parts.append(_seat(execution))
    return [cove, cove.workspaces, cove.tenant, cove.tokens, demo, *parts]


def _seat(execution: Any) -> Any:
    """Before an execution, and not taken yet."""
    if isinstance(execution, executions.Execution):
        return attachment.Attachment(execution._connection, execution.name)  # noqa: SLF001
    return sync.Attachment(execution._loop, execution._loop.run(_made(execution._of)))  # noqa: SLF001


async def _made(execution: executions.Execution) -> attachment.Attachment:
    return attachment.Attachment(execution._connection, execution.name)  # noqa: SLF001


def _public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def _assert_same(name: str, theirs: object, ours: object) -> None:
    one, other = getattr(theirs, name), getattr(ours, name)
    if not inspect.ismethod(one):
        assert type(other) is FACADES.get(type(one), type(one)), name
        return
    assert inspect.ismethod(other)
    signature = inspect.signature(one)
    expected = signature.replace(return_annotation=_waited_for(signature.return_annotation))
    assert inspect.signature(other) == expected, name
    assert other.__doc__, name
    assert not inspect.iscoroutinefunction(other), name


def _waited_for(returned: Any) -> Any:
    """What a blocking method returns where the async one returns this."""
    if get_origin(returned) is AsyncGenerator:
        item = get_args(returned)[0]
        return GenericAlias(Generator, (FACADES.get(item, item), None, None))
    return FACADES.get(returned, returned) if isinstance(returned, type) else returned
