"""What the gateway knows of how a commit came about: who asked, and what ran.

Of a command it tells a digest and how it ended: its words may hold a secret, and so
may the values of its variables, which are not even in the digest.
"""

import json
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from cove.executor.v1 import executor_pb2
from cove.git.v1 import git_pb2
from cove.registry.v1.registry_pb2 import Environment
from gateway import names
from gateway.tools import Tools

MOST: Final = 256
"""So many of the newest executions are told of; the others are counted."""
_PAGE: Final = 1000


class Accounts:
    def __init__(self, tools: Tools, clock: Callable[[], float] = time.time) -> None:
        self._git = tools.git
        self._executor = tools.executor
        self._clock = clock

    async def of(self, environment: Environment) -> git_pb2.Provenance:
        """What is to be signed for the next commit: all that ran since the last such one."""
        asked = git_pb2.GetWorktreeRequest(uid=environment.uid)
        worktree = (await self._git.unary(self._git.rpc.GetWorktree, asked)).worktree
        since = _nanoseconds(worktree.provenance_time)
        # What ended just then may have been told as running: the news of an end takes a while.
        running = frozenset(worktree.provenance_running)
        now = Timestamp()
        now.FromNanoseconds(int(self._clock() * 1_000_000_000))
        found: list[executor_pb2.Execution] = []
        request = executor_pb2.ListExecutionsRequest(
            parent=names.behind(environment), page_size=_PAGE
        )
        count = 0
        while True:
            page = await self._executor.unary(self._executor.rpc.ListExecutions, request)
            fitting = [
                one
                for one in page.executions
                if _ran(one) and (_last(one) > since or _id(one) in running)
            ]
            count += len(fitting)
            # No more are held than are told of, however many there were.
            found = sorted([*found, *fitting], key=_order)[-MOST:]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        return git_pb2.Provenance(
            workspace=names.workspace_name(environment.name),
            executions=[_told(one) for one in found],
            executions_omitted=count - len(found),
            time=now,
        )


def command_sha256(spec: executor_pb2.ExecutionSpec) -> str:
    """SHA-256 of what was to be run, as docs/provenance.md defines it."""
    said = {
        "argv": [*spec.argv],
        "cwd": spec.cwd,
        "env": sorted(spec.env),
        "interpreter": spec.interpreter,
        "script": spec.script,
    }
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode()).hexdigest()


def _told(one: executor_pb2.Execution) -> git_pb2.ProvenanceExecution:
    told = git_pb2.ProvenanceExecution(
        id=_id(one),
        command_sha256=command_sha256(one.spec),
        start_time=one.start_time,
    )
    how = one.exit.WhichOneof("reason")
    if how is None:
        return told
    if one.exit.HasField("end_time"):
        told.end_time.CopyFrom(one.exit.end_time)
    match how:
        case "code":
            told.code = one.exit.code
        case "signal":
            told.signal = one.exit.signal.number
        case _:
            told.ended_by = how
    return told


def _id(one: executor_pb2.Execution) -> str:
    return names.split_execution(one.name)[1]


def _ran(one: executor_pb2.Execution) -> bool:
    return one.HasField("start_time")


def _last(one: executor_pb2.Execution) -> float:
    """When it was last seen to run, in nanoseconds; one that still runs is always new."""
    if one.exit.WhichOneof("reason") is None:
        return float("inf")
    return max(_nanoseconds(one.exit.end_time), _nanoseconds(one.start_time))


def _order(one: executor_pb2.Execution) -> tuple[int, str]:
    return _nanoseconds(one.start_time), one.name


def _nanoseconds(time: Timestamp) -> int:
    return time.seconds * 1_000_000_000 + time.nanos
