"""What an agent may answer about ports and processes, though no agent of ours does."""

import random
from pathlib import Path

from agent.encoding import processes
from agent.messages import Process, Processes
from cove.executor.v1 import executor_pb2 as pb
from services.executor import convert
from services.executor.executions import Snapshot
from services.executor.record import Progress, Record, Spec, State


def test_any_list_of_processes_is_survived() -> None:
    draw = random.Random(11)
    pieces = [b"", b"0", b"1", b"2", b"-1", b"\xff", b"9" * 30, b"9" * 5000, b"key", b"S", b" 7 "]
    read = 0
    for _ in range(3000):
        fields = draw.choices(pieces, k=draw.randrange(20))
        try:
            processes(fields)
        except (ValueError, IndexError):
            continue
        read += 1
    assert read


def test_numbers_that_fit_nothing_are_cut() -> None:
    record = Record(
        uid="a" * 16,
        execution_id="one",
        spec=Spec(argv=("true",), timeout_ns=1),
        created_ns=1,
        token="t",
        folder=Path("/nowhere"),
    )
    found = Process(10**30, "?", -(10**30), 10**40, b"\xff\0\xfe")
    snapshot = Snapshot(record, Progress(State.RUNNING), 0, 0)
    message = convert.execution(snapshot, Processes(10**20, (found, found)))
    assert message.processes.total == 2**31 - 1
    process = message.processes.processes[0]
    assert process.pid == 2**31 - 1
    assert process.memory_bytes == 0
    assert process.state == pb.Process.STATE_UNSPECIFIED
    assert list(process.argv) == ["\ufffd", "\ufffd"]
