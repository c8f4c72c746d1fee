"""All workspaces: made, found, watched."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

from cove import networks, status
from cove.connection import Connection
from cove.connection import request_id as new_request_id
from cove.durations import duration
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import SourceServiceStub, WorkspaceServiceStub
from cove.git.v1 import git_pb2
from cove.registry.v1 import registry_pb2
from cove.watch import Change, watch_workspaces
from cove.workspace import Workspace

_PROGRESS_INTERVAL: Final = 0.2

OnProgress = Callable[[registry_pb2.Progress], None]


class Workspaces:
    """All workspaces of the caller."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = WorkspaceServiceStub(connection.channel)

    async def create(
        self,
        repository: str | Path = "",
        *,
        id: str = "",  # noqa: A002 - the contract's word.
        revision: str = "",
        branch: str = "",
        driver: str = "",
        image: str = "",
        setup: Iterable[str] = (),
        requires: Iterable[str] = (),
        rebuild: bool = False,
        depth: int = 0,
        filter: str = "",  # noqa: A002 - the contract's word.
        env: Mapping[str, str] | None = None,
        limits: registry_pb2.Limits | None = None,
        network: Iterable[str] = (),
        ttl: timedelta | float | None = None,
        idle_timeout: timedelta | float | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        credentials: git_pb2.Credentials | None = None,
        wait: bool = True,
        keep_failed: bool = False,
        on_progress: OnProgress | None = None,
        request_id: str = "",
    ) -> Workspace:
        """Make a workspace from a repository: a URL, or a local `Path`; an empty one without.

        `revision` is a branch, tag or commit of it, its HEAD by default; `branch` the one that
        is made for the workspace, `cove/{id}` by default. `depth` commits of history, back from
        the revision, are enough; so are the contents that `filter` leaves, `blob:none` or
        `blob:limit=1m`, besides those of the revision itself. `env` holds variables of every
        command, `network` what may be reached: see `update`. Without `wait` it returns when the
        workspace is recorded. `on_progress` is told how far it is while it is made. One that fails
        leaves nothing, unless `keep_failed`.

        `driver` is what it stands on, the node's default when it is empty. Where that has images,
        `image` names the root file system of its programs, by name or digest, and `setup` are
        shell scripts that are run on it, once for all who name the same ones. It `requires`
        capabilities by their names: `client.capabilities()` lists those of each driver. With
        `rebuild` it is made again on another node when its own is gone, from its last commit,
        which a second node keeps; what was not committed is lost then.

        `ttl`, in seconds from now, is when it is deleted by itself, its unsaved work kept as
        `delete` keeps it. With an `idle_timeout` it is suspended when for so long nobody has used
        it and nothing has run in it; the next use resumes it. Both are endless by default.

        `request_id`, a UUID, is for callers that may die: called again with the same one within
        24 h, also by another process, it joins the call or returns its workspace. Raises
        `AlreadyExists` when the id or the branch is taken; `NotFound` when there is no such
        repository or revision; `PermissionDenied` when `credentials` do not do;
        `InvalidArgument` for an id, a branch name, a URL or a host that is not allowed;
        `FailedPrecondition` when this host cannot do what is asked; `ResourceExhausted` when
        the repository is too large or the disk full.
        """
        request = pb.CreateWorkspaceRequest(
            workspace_id=id or (_id() if on_progress else ""),
            workspace=pb.Workspace(
                spec=registry_pb2.EnvironmentSpec(
                    repository=_url(repository),
                    revision=revision,
                    branch=branch,
                    driver=driver,
                    image=image,
                    setup=setup,
                    required_capabilities=requires,
                    rebuild=rebuild,
                    depth=depth,
                    filter=filter,
                    limits=limits,
                    env=env,
                    network=networks.given(network),
                    ttl=duration(ttl),
                    idle_timeout=duration(idle_timeout),
                ),
                labels=labels,
                annotations=annotations,
            ),
            request_id=new_request_id(request_id),
            return_when=pb.RETURN_WHEN_READY if wait else pb.RETURN_WHEN_ACCEPTED,
            on_failure=pb.ON_FAILURE_KEEP if keep_failed else pb.ON_FAILURE_REMOVE,
            credentials=credentials,
        )
        async with self._watching(request.workspace_id, on_progress):
            answer = await self._connection.unary(self._stub.CreateWorkspace, request)
        return Workspace(self._connection, answer.workspace)

    async def get(self, id: str) -> Workspace:  # noqa: A002
        """One workspace, as it is now. Raises `NotFound`."""
        workspace = self.named(id)
        await workspace.refresh()
        return workspace

    def named(self, id: str) -> Workspace:  # noqa: A002
        """A handle on one that is known by its id; nothing is asked yet."""
        return Workspace(self._connection, pb.Workspace(name=f"workspaces/{id}"))

    async def list(
        self,
        *,
        show_deleted: bool = False,
        filter: str = "",  # noqa: A002 - the contract's word.
        order_by: str = "",
    ) -> AsyncGenerator[Workspace, None]:
        """All of them in the order of their names, or those that `filter` selects.

        `filter` is an expression of AIP-160, say `state = READY AND labels.team = "x"`;
        `order_by` one of `name`, `create_time`, `update_time`, `state`, with ` desc` or without,
        and `, name` behind it if need be. Raises `InvalidArgument`, which says where it is wrong.
        """
        request = pb.ListWorkspacesRequest(
            show_deleted=show_deleted, filter=filter, order_by=order_by
        )
        while True:
            page = await self._connection.unary(self._stub.ListWorkspaces, request)
            for message in page.workspaces:
                yield Workspace(self._connection, message)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def watch(
        self,
        from_revision: int = 0,
        *,
        filter: str = "",  # noqa: A002 - the contract's word.
    ) -> AsyncGenerator[Change, None]:
        """All of them as they are, then every change; see `cove.watch.watch_workspaces`."""
        return watch_workspaces(self._connection, from_revision, filter)

    async def undelete(self, id: str) -> Workspace:  # noqa: A002
        """Bring back a deleted one whose unsaved work is still kept. Raises `NotFound`."""
        request = pb.UndeleteWorkspaceRequest(name=f"workspaces/{id}", request_id=new_request_id())
        answer = await self._connection.unary(self._stub.UndeleteWorkspace, request)
        return Workspace(self._connection, answer.workspace)

    async def preview_conflicts(
        self,
        ids: Iterable[str],
        *,
        include_uncommitted: bool = True,
        max_conflicts: int = 0,
    ) -> pb.PreviewConflictsResponse:
        """Which of 2 to 32 workspaces of one repository would collide, before anyone merges.

        Changes nothing. Work that is not committed counts as if it were, unless told otherwise.
        Raises `InvalidArgument` where they are not all of one repository, or not on one node.
        """
        request = pb.PreviewConflictsRequest(
            workspaces=[f"workspaces/{id}" for id in ids],  # noqa: A001
            include_uncommitted=include_uncommitted,
            max_conflicts=max_conflicts,
        )
        stub = SourceServiceStub(self._connection.channel)
        return await self._connection.unary(stub.PreviewConflicts, request)

    @asynccontextmanager
    async def _watching(self, id: str, tell: OnProgress | None) -> AsyncIterator[None]:  # noqa: A002
        if tell is None:
            yield
            return
        watching = asyncio.create_task(self._watch(id, tell))
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    async def _watch(self, id: str, tell: OnProgress) -> None:  # noqa: A002
        request = pb.GetWorkspaceRequest(name=f"workspaces/{id}")
        while True:
            await asyncio.sleep(_PROGRESS_INTERVAL)
            with suppress(status.CoveError):  # Not there yet, or no more.
                answer = await self._connection.unary(self._stub.GetWorkspace, request)
                tell(answer.workspace.progress)


def _url(repository: str | Path) -> str:
    return repository if isinstance(repository, str) else repository.absolute().as_uri()


def _id() -> str:
    return f"ws-{secrets.token_hex(5)}"
