"""Makes what a workspace is made of, step by step, or undoes all of it.

Every step is idempotent by uid, so that to retry and to go on after a crash are
the same code. A step that failed may have been done all the same, when its answer
was lost; so undoing goes over all steps, from the last to the first.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Final

import grpc

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.git.v1 import git_pb2
from cove.provider.v1 import provider_pb2
from cove.registry.v1.registry_pb2 import Environment, EnvironmentWorktree, Failure, Progress
from gateway import names
from gateway.convert import NETWORK_FIELDS, provider_spec
from gateway.copies import Copies
from gateway.deadlines import failure, said
from gateway.drivers import Drivers
from gateway.errors import LeaseLost, WorkspaceNotFound
from gateway.records import Records, State
from gateway.teardown import Teardown
from gateway.tools import Tools, retold, transient
from servicekit import calls, tracing
from servicekit.errors import ServiceError
from servicekit.status import InternalFailure, reason

_log = logging.getLogger(__name__)

_STEP_SECONDS: Final = 660.0
"""More than a step may take: a clone, or an image and its setup."""
_AGAIN_SECONDS: Final = 0.5
FIELDS: Final = {
    **{name: f"workspace.spec.{name}" for name in ("repository", "revision", "branch")},
    **{
        f"spec.{name}": f"workspace.spec.{name}"
        for name in ("driver", "limits", "image", "setup", "required_capabilities")
    },
    **NETWORK_FIELDS,
}
_NOT_HERE: Final = (
    ErrorReason.ERROR_REASON_REVISION_NOT_FOUND,
    ErrorReason.ERROR_REASON_REPOSITORY_NOT_FOUND,
)
PROVISIONED: Final = ("handle", "handle_generation", "driver", "node")
"""The fields of a record that `Saga.provision` fills in."""
MADE: Final = ("worktree", "mount", *PROVISIONED, "head_commit", "warnings")


class Saga:
    def __init__(
        self,
        tools: Tools,
        records: Records,
        teardown: Teardown,
        copies: Copies,
        drivers: Drivers,
        progress_interval: timedelta,
    ) -> None:
        self._tools = tools
        self._records = records
        self._teardown = teardown
        self._copies = copies
        self._drivers = drivers
        self._progress_interval = progress_interval.total_seconds()

    async def make(
        self,
        environment: Environment,
        *,
        credentials: git_pb2.Credentials | None = None,
        request_id: str = "",
        patient: bool = False,
    ) -> Environment:
        """Take a claimed PENDING record to READY, or undo all and raise what failed.

        With `patient` a failure that may pass is raised, and nothing is undone.
        """
        try:
            made = Environment()
            made.CopyFrom(environment)
            if self._tools.nodes.gone(made.node) and not made.HasField("source"):
                # Nobody was told that it is there. What is left on that node is an orphan.
                made.node = self._tools.nodes.place(made.spec)
            with calls.detached(node=made.node):
                with _step("worktree"):
                    await self._make_worktree(made, credentials, request_id)
                with _step("provision"):
                    source = "" if made.source.snapshot_id else made.source.uid
                    await self.provision(made, request_id, source)
            with _step("record"):
                await self._records.update(made, MADE, fencing_token=made.fencing_token)
                return await self._records.move(made, State.STATE_READY, release=True)
        except (LeaseLost, WorkspaceNotFound):
            raise LeaseLost("another gateway has it") from None
        except Exception as error:
            if patient and transient(error):
                raise
            await self._fail(environment, error)
            raise

    async def undo(self, environment: Environment) -> None:
        """Leave nothing. Raises what a tool said that could not take down its part."""
        await self._teardown.sandbox(environment.uid)
        await self._teardown.worktree(environment.uid, keep_unsaved=False)
        await self._records.deregister(environment)

    async def remake(self, environment: Environment) -> None:
        """Make what was lost with its node once more, where the current call is made: with its
        last commit, if that can be had here, else with the one that it began with.

        What is made goes into `environment`. Raises what stands in the way; nothing is left then.
        """
        base = environment.worktree.base_commit
        wanted = [environment.head_commit, environment.copy_commit, base, ""]
        lost = environment.node
        try:
            for revision in dict.fromkeys(wanted):
                try:
                    await self._make_worktree(environment, None, "", revision=revision)
                    break
                except grpc.aio.AioRpcError as error:
                    if not revision or reason(error) not in _NOT_HERE:
                        raise
            environment.worktree.base_commit = base
            if environment.head_commit != wanted[0]:
                environment.warnings.append(f"commits after {environment.head_commit} are lost")
            environment.warnings.append(
                f"made again on {lost}: what was not committed is lost, and home and /tmp are new"
            )
            await self.provision(environment, "")
        except BaseException:
            with suppress(ServiceError, grpc.aio.AioRpcError):
                await self._teardown.sandbox(environment.uid)
                await self._teardown.worktree(
                    environment.uid, keep_unsaved=False, keep_commits=True
                )
            raise

    async def provision(self, environment: Environment, request_id: str, source: str = "") -> None:
        """Have the provider make its part; what it answers goes into `environment`.

        `source` is what it is forked from, as that is now.
        """
        provider = self._tools.provider
        request = provider_pb2.ProvisionEnvironmentRequest(
            uid=environment.uid,
            spec=provider_spec(environment.spec),
            mount=environment.mount,
            request_id=_derived(request_id, environment, "provision"),
            source_uid=source,
        )
        made = await provider.unary(
            provider.rpc.ProvisionEnvironment, request, timeout=_STEP_SECONDS
        )
        environment.handle = made.handle
        environment.handle_generation = made.generation
        environment.driver = made.driver
        environment.node = made.node

    async def _make_worktree(
        self,
        environment: Environment,
        credentials: git_pb2.Credentials | None,
        request_id: str,
        revision: str | None = None,
    ) -> None:
        """Of the spec; with a `revision`, of that one and whatever it was forked from."""
        if environment.HasField("source") and revision is None:
            forked = await self._copies.fork(environment, request_id)
            _note(environment, forked.worktree)
            environment.mount.CopyFrom(forked.mount)
            return
        git = self._tools.git
        request = git_pb2.CreateWorktreeRequest(
            uid=environment.uid,
            repository=environment.spec.repository,
            revision=environment.spec.revision if revision is None else revision,
            branch=names.branch_of(environment),
            depth=environment.spec.depth,
            filter=environment.spec.filter,
            plain=await self._drivers.plain(environment.spec),
            credentials=credentials,
            request_id=_derived(request_id, environment, "worktree"),
        )
        following = asyncio.create_task(self._follow(environment))
        try:
            made = await git.unary(git.rpc.CreateWorktree, request, timeout=_STEP_SECONDS)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        _note(environment, made.worktree)
        if made.HasField("resolved_time"):
            environment.worktree.resolved_time.CopyFrom(made.resolved_time)
        environment.mount.CopyFrom(made.mount)
        environment.warnings[:] = made.warnings

    async def _follow(self, environment: Environment) -> None:
        """Copy how far git is into the record. It only informs: failures do not matter."""
        git = self._tools.git
        request = git_pb2.GetWorktreeRequest(uid=environment.uid)
        shown = Progress()
        while True:
            await asyncio.sleep(self._progress_interval)
            with suppress(ServiceError, grpc.aio.AioRpcError):
                tree = (await git.unary(git.rpc.GetWorktree, request)).worktree
                seen = Progress(phase=tree.phase, done=tree.phase_done, total=tree.phase_total)
                if seen != shown:
                    await self._records.update(
                        Environment(name=environment.name, progress=seen),
                        ["progress"],
                        fencing_token=environment.fencing_token,
                    )
                    shown = seen

    async def _fail(self, environment: Environment, error: Exception) -> None:
        """Undo what was made. What cannot be undone now, the reconciler undoes.

        DELETING is recorded first: what its caller is told has failed must not be
        finished by whoever takes it over.
        """
        keep = environment.keep_on_failure
        if not keep:
            await self._move(environment, State.STATE_DELETING)
        try:
            if not keep:
                await self.undo(environment)
                return
            await self._teardown.sandbox(environment.uid)
            await self._teardown.worktree(environment.uid, keep_unsaved=False)
        except (ServiceError, grpc.aio.AioRpcError) as stuck:
            _log.warning("cannot undo now: %s", stuck, extra={"fields": {"uid": environment.uid}})
        if keep:
            why = failure_of(error)
            await self._move(environment, State.STATE_FAILED, failure=why, release=True)

    async def _move(
        self,
        environment: Environment,
        state: State.ValueType,
        *,
        failure: Failure | None = None,
        release: bool = False,
    ) -> None:
        """To another state, as soon as the registry is there and has room; the lease limits it."""
        while True:
            try:
                await self._records.move(environment, state, failure=failure, release=release)
                return
            except (ServiceError, grpc.aio.AioRpcError) as error:
                full = reason(error) == ErrorReason.ERROR_REASON_DISK_FULL
                if not full and not transient(error):
                    raise
            await asyncio.sleep(_AGAIN_SECONDS)


def _note(environment: Environment, made: git_pb2.Worktree) -> None:
    environment.worktree.CopyFrom(
        EnvironmentWorktree(branch=made.branch, base_commit=made.base_commit)
    )
    environment.head_commit = made.head_commit


def failure_of(error: Exception) -> Failure:
    """What the record of a FAILED workspace says of it."""
    told = reason(error)
    if told == ErrorReason.ERROR_REASON_UNSPECIFIED:
        return failure(ErrorReason.ERROR_REASON_INTERNAL, "internal error")
    return failure(told, said(error))


def _derived(request_id: str, environment: Environment, step: str) -> str:
    """By uid too: a request that is made anew after it failed has a new uid."""
    return names.derived(request_id, f"{environment.uid}/{step}")


@contextmanager
def _step(name: str) -> Iterator[None]:
    try:
        with tracing.span(f"create {name}"):
            yield
    except InternalFailure:  # Of which nobody is told where it was.
        raise
    except ServiceError as error:
        error.metadata["step"] = name
        raise
    except grpc.aio.AioRpcError as error:
        raise retold(error, fields=FIELDS, metadata={"step": name}) from error
