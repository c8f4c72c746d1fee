"""What only services tell each other: asked at their own sockets, as gateways do."""

from typing import Any

from cove.executor.v1 import executor_pb2
from cove.git.v1 import git_pb2
from cove.provider.v1 import provider_pb2
from cove.registry.v1 import registry_pb2
from tests.errors.cases import BEHIND, provokes
from tests.errors.doors import Refusal
from tests.errors.world import Try

NOBODY = "a" * 16
"""The uid of no environment."""


async def ask(t: Try, tool: str, rpc: str, *requests: Any) -> Refusal:
    async with t.world.tool(tool) as door:
        return await door.ask(rpc, *requests)


async def call(t: Try, tool: str, rpc: str, *requests: Any) -> Any:
    async with t.world.tool(tool) as door:
        return await door.call(rpc, *requests)


async def record(t: Try, name: str) -> registry_pb2.Environment:
    """What the registry has of a workspace."""
    name = name.replace("workspaces/", "environments/")
    request = registry_pb2.GetEnvironmentRequest(name=name)
    answer = await call(t, "registry", "GetEnvironment", request)
    return answer.environment  # type: ignore[no-any-return]


@provokes("ENVIRONMENT_NOT_FOUND", "NOT_FOUND", doors=(BEHIND,))
async def environment_not_found(t: Try) -> Refusal:
    request = registry_pb2.GetEnvironmentRequest(name="environments/none")
    return await ask(t, "registry", "GetEnvironment", request)


@provokes("ENVIRONMENT_EXISTS", "ALREADY_EXISTS", doors=(BEHIND,))
async def environment_exists(t: Try) -> Refusal:
    request = registry_pb2.RegisterEnvironmentRequest(
        environment_id="mine", environment=registry_pb2.Environment(), holder="somebody"
    )
    request.lease.FromSeconds(60)
    return await ask(t, "registry", "RegisterEnvironment", request)


@provokes("TRANSITION_FORBIDDEN", "FAILED_PRECONDITION", doors=(BEHIND,))
async def transition_forbidden(t: Try) -> Refusal:
    request = registry_pb2.UpdateEnvironmentStatusRequest(
        name="environments/mine", state=registry_pb2.Environment.STATE_PENDING
    )
    return await ask(t, "registry", "UpdateEnvironmentStatus", request)


@provokes("WORKTREE_NOT_FOUND", "NOT_FOUND", doors=(BEHIND,))
async def worktree_not_found(t: Try) -> Refusal:
    return await ask(t, "git", "GetWorktree", git_pb2.GetWorktreeRequest(uid=NOBODY))


@provokes("WORKTREE_EXISTS", "ALREADY_EXISTS", doors=(BEHIND,))
async def worktree_exists(t: Try) -> Refusal:
    uid = (await record(t, "workspaces/mine")).uid
    request = git_pb2.CreateWorktreeRequest(uid=uid, branch="another")
    return await ask(t, "git", "CreateWorktree", request)


@provokes("UNSAVED_WORK", "FAILED_PRECONDITION", doors=(BEHIND,))
async def unsaved_work(t: Try) -> Refusal:
    name = await t.workspace("unsaved", repository="")
    await t.run(name, "echo x > new")
    request = git_pb2.RemoveWorktreeRequest(uid=await t.uid(name), keep_unsaved=True)
    return await ask(t, "git", "RemoveWorktree", request)


@provokes("WORKTREE_IN_USE", "FAILED_PRECONDITION", doors=(BEHIND,))
async def worktree_in_use(t: Try) -> Refusal:
    name = await t.workspace("in-use", repository="")
    await t.start(name, "sleeper", "exec sleep 1000")
    request = git_pb2.SnapshotWorktreeRequest(uid=await t.uid(name), snapshot_id="now")
    return await ask(t, "git", "SnapshotWorktree", request)


def upload(header: git_pb2.ImportCommitsHeader, pack: bytes) -> tuple[Any, ...]:
    return (
        git_pb2.ImportCommitsRequest(header=header),
        git_pb2.ImportCommitsRequest(data=pack),
        git_pb2.ImportCommitsRequest(end=git_pb2.PackEnd(bytes=len(pack))),
    )


@provokes("COMMITS_MISSING", "FAILED_PRECONDITION", doors=(BEHIND,))
async def commits_missing(t: Try) -> Refusal:
    header = git_pb2.ImportCommitsHeader(uid=NOBODY, commit="1" * 40, prerequisites=["2" * 40])
    return await ask(t, "git", "ImportCommits", *upload(header, b"PACK"))


@provokes("COMMITS_INVALID", "INVALID_ARGUMENT", doors=(BEHIND,))
async def commits_invalid(t: Try) -> Refusal:
    header = git_pb2.ImportCommitsHeader(uid=NOBODY, commit="1" * 40)
    return await ask(t, "git", "ImportCommits", *upload(header, b"PACK" + bytes(1000)))


@provokes("NOT_PROVISIONED", "NOT_FOUND", doors=(BEHIND,))
async def not_provisioned(t: Try) -> Refusal:
    name = await t.workspace("released", repository="")
    found = await record(t, name)
    release = provider_pb2.ReleaseEnvironmentRequest(uid=found.uid)
    held = t.stage.provider.hold("ListProvisioned")  # Nobody is to find out and make it again.
    try:
        await call(t, "provider", "ReleaseEnvironment", release)
        request = provider_pb2.ActivateEnvironmentRequest(handle=found.handle)
        return await ask(t, "provider", "ActivateEnvironment", request)
    finally:
        held.go_on.set()
        t.stage.heal()


@provokes("PROVISIONED_DIFFERENTLY", "ALREADY_EXISTS", doors=(BEHIND,))
async def provisioned_differently(t: Try) -> Refusal:
    found = await record(t, "workspaces/mine")
    request = provider_pb2.ProvisionEnvironmentRequest(
        uid=found.uid,
        mount=found.mount,
        spec=provider_pb2.Spec(limits=provider_pb2.Limits(processes=7)),
    )
    return await ask(t, "provider", "ProvisionEnvironment", request)


@provokes("ENVIRONMENT_STOPPED", "FAILED_PRECONDITION", doors=(BEHIND,))
async def environment_stopped(t: Try) -> Refusal:
    handle = (await record(t, await t.workspace("stopped", repository=""))).handle
    stop = provider_pb2.StopEnvironmentRequest(handle=handle, revision=10**6, force=True)
    await call(t, "provider", "StopEnvironment", stop)
    request = provider_pb2.ActivateEnvironmentRequest(handle=handle)
    return await ask(t, "provider", "ActivateEnvironment", request)


@provokes("HANDLE_INVALID", "INVALID_ARGUMENT", doors=(BEHIND,))
async def handle_invalid(t: Try) -> Refusal:
    spec = executor_pb2.ExecutionSpec(argv=["true"])
    return await ask(t, "executor", "Execute", executor_pb2.ExecuteRequest(handle=b"x", spec=spec))


@provokes("ENVIRONMENT_DORMANT", "FAILED_PRECONDITION", doors=(BEHIND,))
async def environment_dormant(t: Try) -> Refusal:
    handle = (await record(t, await t.workspace("dormant", repository=""))).handle
    spec = executor_pb2.ExecutionSpec(argv=["true"])
    request = executor_pb2.ExecuteRequest(handle=handle, spec=spec)
    return await ask(t, "executor", "Execute", request)
