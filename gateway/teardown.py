"""Takes down what stands behind an environment. Each part may be gone already."""

from typing import Final

from cove.executor.v1 import executor_pb2
from cove.git.v1 import git_pb2
from cove.provider.v1 import provider_pb2
from gateway import names
from gateway.tools import Tools
from servicekit import calls

_SECONDS: Final = 130.0


class Teardown:
    """The steps, in the order in which they have to come.

    They carry no request id: they are safe to repeat, and what was taken down may
    have been made again since. On a node that is gone nothing can be taken down: what is left
    there has no record when it comes back, and is removed as an orphan.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def _gone(self) -> bool:
        return self._tools.nodes.gone(calls.current().node)

    async def sandbox(self, uid: str) -> None:
        """Every process, and what the sandbox stood on."""
        if self._gone():
            return
        provider = self._tools.provider
        request = provider_pb2.ReleaseEnvironmentRequest(uid=uid)
        await provider.unary(provider.rpc.ReleaseEnvironment, request, timeout=_SECONDS)

    async def executions(self, uid: str) -> None:
        """The records and the output of all commands."""
        if self._gone():
            return
        executor = self._tools.executor
        request = executor_pb2.DeleteExecutionsRequest(parent=f"{names.ENVIRONMENTS}{uid}")
        await executor.unary(executor.rpc.DeleteExecutions, request, timeout=_SECONDS)

    async def worktree(self, uid: str, *, keep_unsaved: bool, keep_commits: bool = False) -> None:
        """The files and the branch. With `keep_unsaved` git refuses to lose work.

        With `keep_commits` those stay that the node keeps for a workspace of another one.
        """
        if self._gone():
            return
        git = self._tools.git
        request = git_pb2.RemoveWorktreeRequest(
            uid=uid, keep_unsaved=keep_unsaved, keep_commits=keep_commits
        )
        await git.unary(git.rpc.RemoveWorktree, request, timeout=_SECONDS)
