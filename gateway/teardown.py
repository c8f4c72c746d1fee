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

    async def sandbox(self, uid: str) -> bool:
        """Every process, and what the sandbox stood on. Whether anything was there."""
        if self._gone():
            return False
        provider = self._tools.provider
        request = provider_pb2.ReleaseEnvironmentRequest(uid=uid)
        rpc = provider.rpc.ReleaseEnvironment
        return (await provider.unary(rpc, request, timeout=_SECONDS)).existed

    async def executions(self, uid: str) -> bool:
        """The records and the output of all commands. Whether there were any."""
        if self._gone():
            return False
        executor = self._tools.executor
        request = executor_pb2.DeleteExecutionsRequest(parent=f"{names.ENVIRONMENTS}{uid}")
        rpc = executor.rpc.DeleteExecutions
        return (await executor.unary(rpc, request, timeout=_SECONDS)).removed > 0

    async def worktree(self, uid: str, *, keep_unsaved: bool, keep_commits: bool = False) -> bool:
        """The files and the branch. With `keep_unsaved` git refuses to lose work. Whether
        anything was there.

        With `keep_commits` those stay that the node keeps for a workspace of another one.
        """
        if self._gone():
            return False
        git = self._tools.git
        request = git_pb2.RemoveWorktreeRequest(
            uid=uid, keep_unsaved=keep_unsaved, keep_commits=keep_commits
        )
        return (await git.unary(git.rpc.RemoveWorktree, request, timeout=_SECONDS)).existed
