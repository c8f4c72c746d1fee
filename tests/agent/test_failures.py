"""An error of the agent's own ends one execution, and nothing else."""

import os
from pathlib import Path

from agent.inside.execution import Execution
from agent.inside.log import Log
from agent.inside.spawn import blank
from agent.inside.stream import Stream
from agent.inside.tree import Tree
from agent.record import BLANK_RESULT, Result
from tests.agent.node import until


async def test_what_breaks_an_execution_ends_it_alone(tmp_path: Path) -> None:
    log = os.open(tmp_path / "log", os.O_CREAT | os.O_RDWR | os.O_APPEND)
    result = os.open(tmp_path / "result", os.O_CREAT | os.O_RDWR)
    os.pwrite(result, BLANK_RESULT, 0)
    waiting = blank([], 0)
    outputs = waiting.take_outputs(merge=True)
    waiting.become([b"sleep", b"300"], {b"PATH": b"/usr/bin:/bin"}, b"/", merge=True)
    await until(waiting.advance)
    waiting.settle()
    pid = waiting.pid
    records = Log(log, result)
    execution = Execution(b"x", records, Tree(b"x", None), (1, 0, 0))
    execution.pid = execution.tree.leader = pid
    execution.streams = [Stream(outputs[0], 1, records)]
    execution.break_off(RuntimeError("of a test"))
    assert await until(lambda: os.waitpid(pid, os.WNOHANG)[0]) == pid
    assert execution.ended
    assert not execution.running
    assert execution.deadline() == 0.0
    assert execution.tick(1e12) == []
    assert not execution.streams[0].open
    assert Result.decode((tmp_path / "result").read_bytes()) is None
