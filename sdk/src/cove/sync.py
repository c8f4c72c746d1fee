"""The blocking client of Cove: what `cove.client` does, for code that is not async.

with Client() as cove:
    with cove.workspaces.create("https://example.org/app.git", revision="main") as ws:
        result = ws.execute("make", "test", timeout=600, check=True)
        print(result.text)
        ws.commit("Make the tests pass")
        ws.push()

Parameters, errors, deadlines and retries are those of the async client, whose documentation
each method has. What is a stream there is iterated over with `for`. Ctrl-C cancels the call in
progress; a command that was started goes on, as always. One client may be used from many threads,
and from within a running event loop, say of a notebook, which it then blocks.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from cove import (
    attachment,
    client,
    executions,
    files,
    forwarding,
    snapshots,
    source,
    tenant,
    tokens,
    workspace,
    workspaces,
)
from cove.executor.v1 import executor_pb2
from cove.facade import Facade, call, call_for, iterate, iterate_for
from cove.gateway.v1 import gateway_pb2 as pb
from cove.loop import Closed as Closed
from cove.loop import Loop
from cove.result import CommandFailed as CommandFailed
from cove.result import Result as Result


class Files(Facade[files.Files]):
    """The files of one workspace. No path and no symbolic link leads out of it."""

    read = call(files.Files.read)
    read_text = call(files.Files.read_text)
    fetch = call(files.Files.fetch)
    download = iterate(files.Files.download)
    write = call(files.Files.write)
    upload_directory = call(files.Files.upload_directory)
    download_directory = call(files.Files.download_directory)
    watch = iterate(files.Files.watch)
    stat = call(files.Files.stat)
    list = iterate(files.Files.list)
    mkdir = call(files.Files.mkdir)
    remove = call(files.Files.remove)
    move = call(files.Files.move)


class Source(Facade[source.Source]):
    """The branch of one workspace, seen from outside: nothing in it is executed."""

    status = call(source.Source.status)
    diff = iterate(source.Source.diff)
    commit = call(source.Source.commit)
    log = iterate(source.Source.log)
    branches = iterate(source.Source.branches)
    push = call(source.Source.push)
    provenance = call(source.Source.provenance)
    merge = call(source.Source.merge)
    preview_merge = call(source.Source.preview_merge)


class Snapshots(Facade[snapshots.Snapshots]):
    """All snapshots of one workspace. They go with it."""

    create = call(snapshots.Snapshots.create)
    list = call(snapshots.Snapshots.list)
    delete = call(snapshots.Snapshots.delete)


class Attachment(Facade[attachment.Attachment]):
    """A seat before a command. Read `events` in one thread, and write from another one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def execution(self) -> executor_pb2.Execution:
        """As it was when this began."""
        return self._of.execution

    open = call(attachment.Attachment.open)
    close = call(attachment.Attachment.close)
    events = iterate(attachment.Attachment.events)
    write = call(attachment.Attachment.write)
    close_input = call(attachment.Attachment.close_input)
    resize = call(attachment.Attachment.resize)


class Execution(Facade[executions.Execution]):
    """One command of a workspace. It goes on whether or not anyone watches."""

    @property
    def message(self) -> executor_pb2.Execution:
        """As last seen."""
        return self._of.message

    @property
    def name(self) -> str:
        """`workspaces/{id}/executions/{id}`."""
        return self._of.name

    @property
    def id(self) -> str:
        return self._of.id

    refresh = call(executions.Execution.refresh)
    wait = call(executions.Execution.wait)
    output = iterate(executions.Execution.output)
    usage = iterate(executions.Execution.usage)
    write = call(executions.Execution.write)
    resize = call(executions.Execution.resize)
    attach = call_for(Attachment, executions.Execution.attach)
    signal = call(executions.Execution.signal)
    delete = call(executions.Execution.delete)


class Executions(Facade[executions.Executions]):
    """All commands of one workspace."""

    run = call(executions.Executions.run)
    start = call_for(Execution, executions.Executions.start)
    list = iterate_for(Execution, executions.Executions.list)

    def named(self, id: str) -> Execution:  # noqa: A002 - the contract's word.
        """A handle on one that is known by its id; nothing is asked yet."""
        return Execution(self._loop, self._of.named(id))


class Forward(Facade[forwarding.Forward]):
    """A port of this machine that leads to one inside, as long as the context lasts."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Where it listens; 0 while it does not."""
        return self._of.port

    open = call(forwarding.Forward.open)
    close = call(forwarding.Forward.close)


class Workspace(Facade[workspace.Workspace]):
    """One workspace. What it shows is as of the last call that returned it.

    As a context manager it deletes itself at the end; unsaved work is kept as `delete` keeps it.
    """

    def __init__(self, loop: Loop[client.Client], of: workspace.Workspace) -> None:
        super().__init__(loop, of)
        self.files = Files(loop, of.files)
        self.source = Source(loop, of.source)
        self.executions = Executions(loop, of.executions)
        self.snapshots = Snapshots(loop, of.snapshots)

        self.read = self.files.read
        self.read_text = self.files.read_text
        self.write = self.files.write
        self.remove = self.files.remove
        self.move = self.files.move
        self.mkdir = self.files.mkdir
        self.commit = self.source.commit
        self.diff = self.source.diff
        self.log = self.source.log
        self.branches = self.source.branches
        self.push = self.source.push
        self.provenance = self.source.provenance
        self.merge = self.source.merge
        self.preview_merge = self.source.preview_merge

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.delete(allow_missing=True)

    @property
    def message(self) -> pb.Workspace:
        """As last seen."""
        return self._of.message

    @property
    def name(self) -> str:
        """`workspaces/{id}`."""
        return self._of.name

    @property
    def id(self) -> str:
        return self._of.id

    @property
    def branch(self) -> str:
        return self._of.branch

    def fork(
        self,
        id: str = "",  # noqa: A002 - the contract's word.
        *,
        snapshot: str = "",
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> "Workspace":
        made = self._of.fork(
            id,
            snapshot=snapshot,
            labels=labels,
            annotations=annotations,
            request_id=request_id,
        )
        return Workspace(self._loop, self._loop.run(made))

    fork.__doc__ = workspace.Workspace.fork.__doc__

    def forward(self, port: int, *, local_port: int = 0, host: str = "127.0.0.1") -> Forward:
        return Forward(self._loop, self._of.forward(port, local_port=local_port, host=host))

    forward.__doc__ = (workspace.Workspace.forward.__doc__ or "").replace("an async", "a")

    refresh = call(workspace.Workspace.refresh)
    update = call(workspace.Workspace.update)
    delete = call(workspace.Workspace.delete)
    suspend = call(workspace.Workspace.suspend)
    resume = call(workspace.Workspace.resume)
    execute = call(workspace.Workspace.execute)
    start = call_for(Execution, workspace.Workspace.start)
    stream = iterate(workspace.Workspace.stream)
    usage = iterate(workspace.Workspace.usage)
    stat = call(workspace.Workspace.stat)
    list = call(workspace.Workspace.list)
    status = call(workspace.Workspace.status)


class Tenant(Facade[tenant.Tenant]):
    """The caller's tenant: what it may have, and who did what in it."""

    quota = call(tenant.Tenant.quota)
    set_quota = call(tenant.Tenant.set_quota)
    audit = iterate(tenant.Tenant.audit)


class Tokens(Facade[tokens.Tokens]):
    """All tokens of the tenant. For administrators."""

    create = call(tokens.Tokens.create)
    list = iterate(tokens.Tokens.list)
    revoke = call(tokens.Tokens.revoke)


class Workspaces(Facade[workspaces.Workspaces]):
    """All workspaces of the caller."""

    create = call_for(Workspace, workspaces.Workspaces.create)
    get = call_for(Workspace, workspaces.Workspaces.get)
    list = iterate_for(Workspace, workspaces.Workspaces.list)
    watch = iterate(workspaces.Workspaces.watch)
    undelete = call_for(Workspace, workspaces.Workspaces.undelete)
    preview_conflicts = call(workspaces.Workspaces.preview_conflicts)

    def named(self, id: str) -> Workspace:  # noqa: A002 - the contract's word.
        """A handle on one that is known by its id; nothing is asked yet."""
        return Workspace(self._loop, self._of.named(id))


class Client(Facade[client.Client]):
    """One connection to a gateway, with a thread of its own. Use it as a context manager.

    Its arguments are those of `cove.client.Client`. Closing it, which the end of the program
    does too, ends every stream, and every call in another thread with `Closed`.
    """

    def __init__(
        self,
        address: str | None = None,
        token: str | None = None,
        *,
        state: Path | None = None,
        patience: float = client.PATIENCE,
        acting_for: str | None = None,
    ) -> None:
        loop = Loop(
            lambda: client.Client(
                address, token, state=state, patience=patience, acting_for=acting_for
            )
        )
        super().__init__(loop, loop.inside)
        self.workspaces = Workspaces(loop, loop.inside.workspaces)
        self.tenant = Tenant(loop, loop.inside.tenant)
        self.tokens = Tokens(loop, loop.inside.tokens)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, and wait until nothing of it is left. May be done twice."""
        self._loop.close()

    @property
    def address(self) -> str:
        """Where the gateway is."""
        return self._of.address

    capabilities = call(client.Client.capabilities)
    signing_key = call(client.Client.signing_key)
    health = call(client.Client.health)
