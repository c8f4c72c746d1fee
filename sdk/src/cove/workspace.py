"""One workspace: a worktree of a repository, and a sandbox in which commands run on it."""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Self

from google.protobuf.field_mask_pb2 import FieldMask

from cove import networks
from cove.connection import Connection
from cove.connection import request_id as new_request_id
from cove.durations import duration_if
from cove.executions import Execution, Executions, spec
from cove.executor.v1.executor_pb2 import Execution as Message
from cove.executor.v1.executor_pb2 import ExecutionLimits, File, UsageSample
from cove.files import AnyPath, Files
from cove.forwarding import Forward
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import WorkspaceServiceStub
from cove.git.v1 import git_pb2
from cove.output import Event, read_output
from cove.registry.v1 import registry_pb2
from cove.result import Result
from cove.snapshots import Snapshots
from cove.source import Source


class Workspace:
    """One workspace. What it shows is as of the last call that returned it.

    As a context manager it deletes itself at the end; unsaved work is kept as `delete` keeps it.
    All calls raise `NotFound` when it is gone, and `FailedPrecondition` when it is not ready.
    """

    def __init__(self, connection: Connection, message: pb.Workspace) -> None:
        self._connection = connection
        self._stub = WorkspaceServiceStub(connection.channel)
        self.message = message
        """As last seen."""
        self.files = Files(connection, message.name)
        self.source = Source(connection, message.name)
        self.executions = Executions(connection, message.name)
        self.snapshots = Snapshots(connection, message.name)

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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.delete(allow_missing=True)

    def __repr__(self) -> str:
        return f"<Workspace {self.name}>"

    @property
    def name(self) -> str:
        """`workspaces/{id}`."""
        return self.message.name

    @property
    def id(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def branch(self) -> str:
        return self.message.branch

    async def refresh(self) -> pb.Workspace:
        """Ask how it is now."""
        request = pb.GetWorkspaceRequest(name=self.name)
        self.message = (await self._connection.unary(self._stub.GetWorkspace, request)).workspace
        return self.message

    async def update(
        self,
        *,
        network: Iterable[str] | None = None,
        ttl: timedelta | float | None = None,
        idle_timeout: timedelta | float | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        etag: str = "",
    ) -> pb.Workspace:
        """Change what is given, and nothing else.

        `network` is all that its programs may reach, each `HOST[:PORT[,PORT...]]`, on port 443
        where none is named; a host is a name, `*.example.org` for all below it, an address, or
        `*` for every public one. None is empty. It is in force when this returns, also for
        commands that run: connections that it forbids are cut. Only programs that use the proxy
        of HTTP_PROXY get out; a command that was started without a network does not know it.

        `ttl` counts from the creation: a longer one keeps it for longer. 0 is no `ttl`, and no
        `idle_timeout`; see `Workspaces.create`.

        Raises `InvalidArgument` for a host that is none, and a `ttl` that is over; `Aborted` when
        it is not the one with `etag`, or is just being changed; `FailedPrecondition` when this
        host cannot do that.
        """
        given = {
            "labels": labels,
            "annotations": annotations,
            "spec.network": network,
            "spec.ttl": ttl,
            "spec.idle_timeout": idle_timeout,
        }
        request = pb.UpdateWorkspaceRequest(
            workspace=pb.Workspace(
                name=self.name,
                spec=registry_pb2.EnvironmentSpec(
                    network=networks.given(network or ()),
                    ttl=duration_if(ttl),
                    idle_timeout=duration_if(idle_timeout),
                ),
                labels=labels,
                annotations=annotations,
                etag=etag,
            ),
            update_mask=FieldMask(paths=[key for key, value in given.items() if value is not None]),
            request_id=new_request_id(),
        )
        answer = await self._connection.unary(self._stub.UpdateWorkspace, request)
        self.message = answer.workspace
        return self.message

    async def delete(
        self, *, force: bool = False, allow_missing: bool = False, etag: str = ""
    ) -> pb.Workspace | None:
        """End all that runs in it and remove it.

        Unsaved work, changes that are not committed and commits that are nowhere else, is kept
        for a while, and so is the id: then the workspace is returned, with the `purge_time`.
        `force` keeps nothing and frees the id. Raises `Aborted` when it is not the one with
        `etag`, or another delete is at it.
        """
        request = pb.DeleteWorkspaceRequest(
            name=self.name,
            force=force,
            allow_missing=allow_missing,
            etag=etag,
            request_id=new_request_id(),
        )
        answer = await self._connection.unary(self._stub.DeleteWorkspace, request)
        return answer.workspace if answer.HasField("workspace") else None

    async def suspend(self, *, force: bool = False, etag: str = "") -> pb.Workspace:
        """End its sandbox; all its files stay. It runs nothing until `resume`.

        It can be read by `source`, committed, forked and deleted meanwhile; what needs the sandbox
        raises `FailedPrecondition`. So does this while something runs, unless `force`: then each
        command gets SIGTERM and 5 s later SIGKILL. Raises `Aborted` when it is not the one with
        `etag`, or is just being changed.
        """
        request = pb.SuspendWorkspaceRequest(
            name=self.name, force=force, etag=etag, request_id=new_request_id()
        )
        self.message = (
            await self._connection.unary(self._stub.SuspendWorkspace, request)
        ).workspace
        return self.message

    async def resume(self) -> pb.Workspace:
        """Let it run commands again, after `suspend`. One that is ready stays so."""
        request = pb.ResumeWorkspaceRequest(name=self.name, request_id=new_request_id())
        self.message = (await self._connection.unary(self._stub.ResumeWorkspace, request)).workspace
        return self.message

    async def fork(
        self,
        id: str = "",  # noqa: A002 - the contract's word.
        *,
        snapshot: str = "",
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> "Workspace":
        """Make a workspace as this one is now, or as a `snapshot` of it was.

        It has its head, on a branch `cove/{id}`, uncommitted and ignored files, and what is in
        `.git`; its home and /tmp are empty. Neither sees the other after that. While a process
        runs here, all are frozen until what differs is copied. Raises `AlreadyExists` when the
        id or the branch is taken, `NotFound` when there is no such snapshot. `request_id`: see
        `Workspaces.create`.
        """
        request = pb.ForkWorkspaceRequest(
            name=self.name,
            workspace_id=id,
            snapshot_id=snapshot,
            labels=labels,
            annotations=annotations,
            request_id=new_request_id(request_id),
        )
        answer = await self._connection.unary(self._stub.ForkWorkspace, request)
        return Workspace(self._connection, answer.workspace)

    async def execute(
        self,
        *argv: str,
        script: str = "",
        cwd: str = "",
        env: Mapping[str, str] | None = None,
        timeout: timedelta | float | None = None,
        merge_stderr: bool = False,
        idle_output_timeout: timedelta | float | None = None,
        output_limit: int = 0,
        limits: ExecutionLimits | None = None,
        secrets: Mapping[str, str | None] | None = None,
        redact: bool = False,
        id: str = "",  # noqa: A002 - the contract's word.
        check: bool = False,
    ) -> Result:
        """Run a command to its end: program and arguments, or a `script` for `sh -c`.

        `cwd` is relative to the workspace. `timeout`, in seconds, at most 7 days, ends the
        command and all it started; 1 h by default. `merge_stderr` records both streams as
        standard output, in the exact order. With `check`, another status than 0 raises
        `CommandFailed`.

        `idle_output_timeout` ends it, too, when it has written nothing for so long, and
        `output_limit` when it has written so many bytes. `limits` holds memory, processes,
        processors, descriptors and processor time of this command; one that cannot be kept on
        that host raises `FailedPrecondition`.

        `secrets` are variables that only this command and its children can read; they are kept
        nowhere, so that a retry must bring them again. None stands for the value that the server
        keeps under this name; `NotFound` when it keeps none. With `redact`, `***` is recorded
        where the command writes the value of one, of 4 to 4096 bytes, as it is.

        An `id` runs at most one command, ever: called again with the same id and the same
        command, also by another process, this waits for that one and returns how it ended; with
        another command it raises `AlreadyExists`. `NotFound`: no such program or `cwd`.
        `PermissionDenied`: it is not executable. `ResourceExhausted`: no further process may
        be made, or the disk is full. A caller that leaves does not end the command.
        """
        what = spec(
            argv,
            script=script,
            cwd=cwd,
            env=env,
            timeout=timeout,
            merge_stderr=merge_stderr,
            idle_output_timeout=idle_output_timeout,
            output_limit=output_limit,
            limits=limits,
            secrets=secrets,
            redact=redact,
        )
        result = await self.executions.run(what, id)
        return result.check() if check else result

    async def start(
        self,
        *argv: str,
        script: str = "",
        cwd: str = "",
        env: Mapping[str, str] | None = None,
        timeout: timedelta | float | None = None,
        merge_stderr: bool = False,
        idle_output_timeout: timedelta | float | None = None,
        output_limit: int = 0,
        limits: ExecutionLimits | None = None,
        stdin: bool = False,
        terminal: tuple[int, int] | None = None,
        secrets: Mapping[str, str | None] | None = None,
        redact: bool = False,
        id: str = "",  # noqa: A002
    ) -> Execution:
        """Start a command, and return when it runs. Parameters and errors are `execute`'s.

        With `stdin` it reads what `Execution.write` and `Execution.attach` write, and waits for it;
        without, there is nothing to read. `terminal`, rows and columns, runs it on one.
        """
        what = spec(
            argv,
            script=script,
            cwd=cwd,
            env=env,
            timeout=timeout,
            merge_stderr=merge_stderr,
            idle_output_timeout=idle_output_timeout,
            output_limit=output_limit,
            limits=limits,
            stdin=stdin,
            terminal=terminal,
            secrets=secrets,
            redact=redact,
        )
        return await self.executions.start(what, id)

    def stream(
        self,
        *argv: str,
        script: str = "",
        cwd: str = "",
        env: Mapping[str, str] | None = None,
        timeout: timedelta | float | None = None,
        merge_stderr: bool = False,
        idle_output_timeout: timedelta | float | None = None,
        output_limit: int = 0,
        limits: ExecutionLimits | None = None,
        secrets: Mapping[str, str | None] | None = None,
        redact: bool = False,
        id: str = "",  # noqa: A002
    ) -> AsyncGenerator[Event, None]:
        """Run a command and yield its output as it comes, and at last its `Exit`.

        It is started when the first event is asked for, and goes on when the reader leaves.
        Parameters and errors are those of `execute`, the events those of `Execution.output`.
        """
        what = spec(
            argv,
            script=script,
            cwd=cwd,
            env=env,
            timeout=timeout,
            merge_stderr=merge_stderr,
            idle_output_timeout=idle_output_timeout,
            output_limit=output_limit,
            limits=limits,
            secrets=secrets,
            redact=redact,
        )

        async def started() -> str:
            return (await self.executions.start(what, id)).name

        return read_output(self._connection, started)

    def usage(self, interval: timedelta | float = 1) -> AsyncGenerator[UsageSample, None]:
        """What all of it uses together, now and each `interval` seconds, from 0.1 to 60.

        Nothing is started for it: while the sandbox sleeps, `running` is false. It ends with
        `NotFound` or `FailedPrecondition` when the workspace goes.
        """
        return Execution(self._connection, Message(name=self.name)).usage(interval)

    def forward(self, port: int, *, local_port: int = 0, host: str = "127.0.0.1") -> Forward:
        """Listen on this machine, and connect whoever comes to a port inside.

        Use it as an async context manager; `port` is where it listens, chosen when `local_port`
        is 0. It reaches what listens on the workspace's own localhost, also without a network.
        """
        return Forward(self._connection, self.name, port, host=host, local_port=local_port)

    async def stat(self, path: AnyPath) -> File:
        """What is at a path."""
        return await self.files.stat(path)

    async def list(self, path: AnyPath = ".") -> Sequence[File]:
        """What is in a directory."""
        return [file async for file in self.files.list(path)]

    async def status(self) -> git_pb2.WorktreeStatus:
        """What differs from the head of the branch."""
        return await self.source.status()
