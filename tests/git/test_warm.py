"""Cells that are kept: what one command leaves to the next, and what ends them."""

import asyncio
import fcntl
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from services.git.cell import MADE, Bind, Cell, Cells
from services.git.command import Command
from services.git.errors import (
    CellLost,
    CellUnavailable,
    GitFailed,
    GitTimedOut,
    OutputTooLarge,
    TooLarge,
)
from services.git.pool import Bounds
from services.git.process import Program
from services.git.warm import Warm
from services.git.within import frames, wire
from services.git.within.frames import WireError
from tests.git.parts import Parts
from tests.git.test_cell import arguments_of, eventually_none, run

_ENV = {"PATH": "/usr/bin:/bin"}
_PYTHON = "/usr/bin/python3"
_NAMESPACE = "readlink /proc/self/ns/pid"
_WORKERS = "grep -lx 'python.*' /proc/[0-9]*/comm | grep -v '^/proc/1/' | cut -d/ -f3"


def shell(script: str, name: str = "sh") -> Command:
    return Command(name=name, argv=("sh", "-c", script), env=_ENV)


def numbered(cells: Cells, number: int) -> Cell:
    """A cell that is like no other."""
    return Cell(identity=cells.sandbox, memory=(2 << 30) + (number << 20))


def unique() -> str:
    """A time to sleep that no other process sleeps."""
    return f"1000.{time.monotonic_ns()}"


@asynccontextmanager
async def bounded(directory: Path, bounds: Bounds) -> AsyncIterator[Cells]:
    home = directory / "home"
    directory.chmod(0o755)
    async with Cells([home], bounds=bounds) as cells:
        yield cells


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what must come soon."""
    for _ in range(3000):
        if await holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come")


async def no_workers(git: Parts, cell: Cell) -> None:
    """Wait until workers that were killed are gone."""

    async def is_gone() -> bool:
        return not await run(git, cell, _WORKERS)

    await until(is_gone)


async def test_commands_with_the_same_view_share_a_cell(git: Parts) -> None:
    cell = Cell(identity=git.cells.sandbox)
    first = await run(git, cell, _NAMESPACE)
    elsewhere = Cell(identity=git.cells.sandbox, cwd="/tmp")
    assert await run(git, elsewhere, f"{_NAMESPACE}; pwd") == f"{first}/tmp\n"
    others = [
        Cell(identity=git.cells.sandbox, memory=1 << 30),
        Cell(identity=git.cells.sandbox, once=True),
        Cell(identity=git.cells.sandbox, files={"/run/cell/secret": b"x"}),
        Cell(identity=git.cells.sandbox, network=True),
    ]
    for other in others:
        assert await run(git, other, _NAMESPACE) != first


async def test_a_directory_that_was_made_anew_is_seen(git: Parts) -> None:
    source = git.state / "git" / "worktrees" / "x"
    cell = Cell(identity=git.cells.sandbox, binds=[Bind(source=source, target="/run/cell/x")])
    for name in ("one", "two"):
        source.mkdir(parents=True, mode=0o755)
        (source / name).touch()
        assert await run(git, cell, "ls /run/cell/x") == f"{name}\n"
        (source / name).unlink()
        source.rmdir()
    with pytest.raises(CellLost, match="gone"):
        await git.cells.call(cell, "echo", {}, timeout=20)


async def test_constants_are_there_whatever_was_done_to_them(git: Parts) -> None:
    for head in ("a", "b", "a"):
        path = f"{MADE}/{head}/HEAD"
        cell = Cell(
            identity=git.cells.sandbox,
            constants={path: head.encode(), f"{MADE}/{head}/refs/": b""},
        )
        said = await run(git, cell, f"cat {path}; stat -c %a {path}; ls -d {MADE}/{head}/refs")
        assert said == f"{head}600\n{MADE}/{head}/refs\n"
        await run(git, cell, f"rm {path}; ln -s /etc/hostname {path}")
        answer, _ = await git.cells.call(cell, "echo", {}, timeout=20)
        assert answer == {"calls": answer["calls"]}
        assert await run(git, cell, f"cat {path}") == head


async def test_nothing_of_a_cell_can_be_changed_for_the_next_command(git: Parts) -> None:
    cell = Cell(identity=git.cells.sandbox)
    said = await run(
        git,
        cell,
        "for each in /x /usr/x /.cove.python/x /run/cell/x /bin/x; do touch $each && echo $each;"
        "done; mv /bin /old && echo moved; chmod 777 /.cove.modules && echo modules",
    )
    assert said == ""


async def test_the_agent_cannot_be_looked_into_or_signalled(git: Parts) -> None:
    cell = Cell(identity=git.cells.sandbox)
    before = await run(git, cell, _NAMESPACE)
    await git.cells.call(cell, "echo", {}, timeout=20)
    workers = (await run(git, cell, _WORKERS)).split()
    assert len(workers) == 1
    for pid in ("1", *workers):
        looks = f"cd /proc/{pid} && ls fd fdinfo map_files; cat mem maps environ; readlink cwd exe"
        assert await run(git, cell, f"{{ {looks}; }} 2>/dev/null") == ""
    for name in ("KILL", "STOP", "TERM", "INT", "HUP", "USR1", "CHLD", "SEGV"):
        await run(git, cell, f"kill -{name} 1")
    assert await run(git, cell, _NAMESPACE) == before


async def test_descriptors_have_their_numbers_and_no_others_are_there(git: Parts) -> None:
    cell = Cell(identity=git.cells.sandbox)
    reading, writing = os.pipe()
    reading2, writing2 = os.pipe()
    high = fcntl.fcntl(writing2, fcntl.F_DUPFD_CLOEXEC, 500)  # One that nobody has here.
    try:
        # Twice, as the agent's own descriptors may have any number.
        for _ in range(2):
            script = f"echo one >&{writing}; echo two >&{high}; cd /proc/self/fd; echo *"
            command = Command(name="bash", argv=("bash", "-c", script), env=_ENV)
            async with git.cells.started(cell, command, descriptors=[writing, high]) as running:
                result = await running.finish(limit=1000)
            assert sorted(map(int, result.output.split())) == sorted({0, 1, 2, 3, writing, high})
            assert os.read(reading, 100) + os.read(reading2, 100) == b"one\ntwo\n"
    finally:
        for each in (reading, writing, reading2, writing2, high):
            os.close(each)


async def test_standard_output_and_input_may_go_elsewhere(git: Parts) -> None:
    cell = Cell(identity=git.cells.sandbox)
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
    async with git.cells.started(cell, shell("cat"), stdin=their_in, stdout=their_out) as running:
        os.close(their_in)
        os.close(their_out)
        os.write(our_out, b"hello")
        os.close(our_out)
        assert await running.wait() == 0
    assert os.read(our_in, 100) + os.read(our_in, 100) == b"hello"
    os.close(our_in)


async def test_what_cannot_be_started_says_so(git: Parts) -> None:
    cell = Cell(identity=git.cells.sandbox)
    result = await git.cells.run(cell, Command(name="x", argv=("nowhere",), env=_ENV))
    assert (result.code, result.errors) == (
        127,
        "cannot start nowhere: No such file or directory\n",
    )
    result = await git.cells.run(
        Cell(identity=git.cells.sandbox, cwd="/nowhere"),
        Command(name="x", argv=("true",), env=_ENV),
    )
    assert result.code == 127
    nul = await git.cells.run(cell, Command(name="x", argv=("true", "a\0b"), env=_ENV))
    assert (nul.code, nul.errors) == (127, "cannot start true: embedded null byte\n")
    long = await git.cells.run(cell, Command(name="x", argv=("true", "x" * (4 << 20)), env=_ENV))
    assert (long.code, long.errors) == (127, "cannot start true: Argument list too long\n")
    for _ in range(20):
        async with git.cells.started(cell, Command(name="x", argv=("nowhere",), env=_ENV)):
            pass
    assert (await git.cells.run(cell, shell("kill -SEGV $$"))).code == -11


async def test_large_input_goes_through_and_a_command_may_ignore_it(git: Parts) -> None:
    cell = Cell(identity=git.cells.sandbox)
    data = os.urandom(1 << 20) * 16
    assert (await git.cells.run(cell, shell("cat"), data)).output == data
    assert (await git.cells.run(cell, shell("true"), data)).code == 0
    with pytest.raises(OutputTooLarge):
        await git.cells.run(cell, shell("cat"), data, limit=1 << 20)
    with pytest.raises(GitTimedOut):
        await git.cells.run(cell, shell("cat /dev/zero"), timeout=0.5, limit=1 << 50)


async def test_a_slow_reader_slows_the_command_down(git: Parts) -> None:
    cell = Cell(identity=git.cells.sandbox)
    said: list[str] = []
    script = shell("for i in 1 2 3 4 5 6 7 8; do head -c 100000 /dev/zero; echo $i >&2; done")
    async with git.cells.started(cell, script) as running, aclosing(running.output()) as output:
        running.on_error_line(said.append)
        size = len(await anext(output))
        for _ in range(20):
            assert (await git.cells.run(cell, shell("true"))).code == 0
        assert len(said) < 3
        async for data in output:
            size += len(data)
    assert (size, said[-1]) == (800_000, "8")


@pytest.mark.parametrize("ended", ["killed", "ended", "closed"])
async def test_nothing_of_a_command_is_left(git: Parts, ended: str) -> None:
    cell = Cell(identity=git.cells.sandbox)
    word = unique()
    script = (
        f"sleep {word} & setsid sleep {word} & (setsid sh -c 'sleep {word} & sleep {word}' &) & "
        'sh -c \'exec >/dev/null 2>&1; trap "" TERM HUP; '
        f"while :; do sleep {word}; done' & sleep 0.2; echo ready; "
        + ("" if ended == "ended" else f"exec sleep {word}")
    )
    other = unique()
    async with git.cells.started(cell, shell(f"sleep {other} & wait; echo alive")) as beside:
        async with git.cells.started(cell, shell(script)) as running:
            await running.feed(b"")
            async with aclosing(running.output()) as output:
                assert await anext(output) == b"ready\n"
            if ended == "killed":
                running.kill()
            if ended != "closed":
                assert await running.wait() == (-9 if ended == "killed" else 0)
                assert not (await run(git, cell, f"pgrep -f '[s]leep {word}'"))
        assert await eventually_none(word)
        assert (await run(git, cell, f"pgrep -cf '[s]leep {other}'")).strip() != "0"
        beside.kill()
        assert await beside.wait() == -9
    assert await eventually_none(other)


async def test_operations_answer_and_remember(git: Parts) -> None:
    cell = Cell(identity=git.cells.sandbox)
    name = bytes(range(256))
    reading, writing = os.pipe()
    answer, received = await git.cells.call(cell, "echo", {"name": name}, [writing], timeout=20)
    os.write(received[0], b"through")
    assert os.read(reading, 100) == b"through"
    for each in (*received, writing):
        os.close(each)
    assert os.read(reading, 100) == b""  # Nobody else holds it.
    os.close(reading)
    assert wire.as_bytes(answer["name"]) == name
    again, _ = await git.cells.call(cell, "echo", {}, timeout=20)
    assert (answer["calls"], again["calls"]) == (1, 2)


async def test_operations_that_go_wrong_say_so(git: Parts) -> None:
    cell = Cell(identity=git.cells.sandbox)
    with pytest.raises(GitFailed, match="KeyError"):
        await git.cells.call(cell, "nowhere", {}, timeout=20)
    with pytest.raises(OutputTooLarge):
        await git.cells.call(cell, "echo", {"x": "y" * 1000}, timeout=20, limit=500)
    with pytest.raises(TooLarge, match="more"):  # Nothing that a retry would mend.
        await git.cells.call(cell, "echo", {"x": "y" * frames.LIMIT}, timeout=20)
    with pytest.raises(ValueError, match="kept"):
        await git.cells.call(Cell(identity=cell.identity, once=True), "echo", {}, timeout=1)
    large, _ = await git.cells.call(cell, "echo", {"x": "y" * (8 << 20)}, timeout=20)
    assert len(large["x"]) == 8 << 20


async def test_an_operation_that_hangs_is_killed_and_nothing_else(git: Parts) -> None:
    cell = Cell(identity=git.cells.sandbox)
    async with git.cells.started(cell, shell("echo; read line; echo $line")) as running:
        output = running.output()
        assert await anext(output) == b"\n"
        await git.cells.call(cell, "echo", {}, timeout=20)
        (worker,) = (await run(git, cell, _WORKERS)).split()
        await run(git, cell, f"kill -STOP {worker}")
        with pytest.raises(GitTimedOut):
            await git.cells.call(cell, "echo", {}, timeout=0.3)
        await no_workers(git, cell)
        answer, _ = await git.cells.call(cell, "echo", {}, timeout=20)
        assert answer["calls"] == 1
        await running.feed(b"alive\n")
        assert await anext(output) == b"alive\n"
        await output.aclose()


async def test_a_worker_that_died_is_replaced(git: Parts) -> None:
    cell = Cell(identity=git.cells.sandbox)
    calls = [git.cells.call(cell, "echo", {"n": n}, timeout=20) for n in range(20)]
    answers = await asyncio.gather(*calls)
    assert [answer["n"] for answer, _ in answers] == list(range(20))
    workers = (await run(git, cell, _WORKERS)).split()
    assert 1 <= len(workers) <= 4
    before = await run(git, cell, _NAMESPACE)
    await run(git, cell, f"kill -9 {' '.join(workers)}")
    await no_workers(git, cell)
    for _ in range(2):
        assert (await git.cells.call(cell, "echo", {"n": 1}, timeout=20))[0]["n"] == 1
    assert await run(git, cell, _NAMESPACE) == before


async def test_an_agent_that_died_takes_its_commands_with_it_and_is_replaced(git: Parts) -> None:
    cell = Cell(identity=git.cells.sandbox)
    word = unique()
    before = await run(git, cell, _NAMESPACE)
    async with git.cells.started(cell, shell(f"sleep {word}")) as running:
        os.kill(running.pid, 9)
        with pytest.raises(CellLost):
            await running.finish(limit=1000)
    assert await run(git, cell, _NAMESPACE) != before
    assert await eventually_none(word)


async def test_a_cell_that_is_not_used_ends(tmp_path: Path) -> None:
    async with bounded(tmp_path, Bounds(idle=0.2)) as cells:
        cell = Cell(identity=cells.sandbox)
        first = (await cells.run(cell, shell(f"sleep 0.5; {_NAMESPACE}"))).output
        assert (await cells.run(cell, shell(_NAMESPACE))).output == first

        async def is_another() -> bool:
            await asyncio.sleep(0.3)
            return (await cells.run(cell, shell(_NAMESPACE))).output != first

        await until(is_another)
    async with bounded(tmp_path, Bounds(age=0)) as cells:
        cell = Cell(identity=cells.sandbox)
        first = (await cells.run(cell, shell(_NAMESPACE))).output
        assert (await cells.run(cell, shell(_NAMESPACE))).output != first


async def test_the_cell_that_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    async with bounded(tmp_path, Bounds(limit=2)) as cells:
        one, two, three = (numbered(cells, number) for number in range(3))

        async def where(cell: Cell) -> bytes:
            return (await cells.run(cell, shell(_NAMESPACE))).output

        first, second = await where(one), await where(two)
        async with cells.started(one, shell("cat")) as busy:
            assert await where(two) == second
            third = await where(three)  # Instead of two, as one is busy.
            assert await where(three) == third
            assert await where(one) == first
            async with cells.started(three, shell("cat")) as busy_too:
                # No room: for one command there is a cell, for an operation there is room.
                assert await where(two) != await where(two)
                assert (await cells.call(two, "echo", {}, timeout=20))[0] == {"calls": 1}
                await busy_too.feed(b"")
                assert await busy_too.wait() == 0
            await busy.feed(b"")
            assert await busy.wait() == 0


async def test_cells_are_dropped_with_what_they_see(git: Parts) -> None:
    homes = git.state / "git" / "worktrees"
    cells = []
    for name in ("a", "ab"):
        (homes / name / "tree").mkdir(parents=True)
        bind = Bind(source=homes / name / "tree", target="/run/cell/tree")
        cells.append(Cell(identity=git.cells.sandbox, binds=[bind]))
    before = [await run(git, cell, _NAMESPACE) for cell in cells]
    word = unique()
    async with git.cells.started(cells[0], shell(f"exec sleep {word}")) as running:
        starting = [
            asyncio.create_task(run(git, Cell(identity=cells[0].identity, memory=1 << 30), "true"))
        ]
        await git.cells.drop(homes / "a")
        assert not any(word.encode() in arguments_of(path) for path in Path("/proc").glob("[0-9]*"))
        with pytest.raises(CellLost):
            await running.wait()
        await asyncio.gather(*starting)
    after = [await run(git, cell, _NAMESPACE) for cell in cells]
    assert after[0] != before[0]
    assert after[1] == before[1]


async def test_thirty_two_cells_at_once_and_one_start_for_all_who_want_the_same(
    tmp_path: Path,
) -> None:
    async with bounded(tmp_path, Bounds()) as cells:
        wanted = [numbered(cells, number) for number in range(32)] * 3
        runs = [cells.run(cell, shell(_NAMESPACE), timeout=100) for cell in wanted]
        found = [result.output for result in await asyncio.gather(*runs)]
        assert len(set(found)) == 32
        assert found[:32] == found[32:64] == found[64:]


async def test_a_caller_that_goes_away_ends_neither_the_cell_nor_others(git: Parts) -> None:
    cell = Cell(identity=git.cells.sandbox)
    words = [unique() for _ in range(20)]
    tasks = [asyncio.create_task(run(git, cell, f"sleep {word}")) for word in words]
    last = asyncio.create_task(run(git, cell, _NAMESPACE))
    for number, task in enumerate(tasks):
        for _ in range(number * 3):
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.wait(tasks)
    assert await run(git, cell, _NAMESPACE) == await last
    for word in words:
        assert await eventually_none(word)


async def test_all_cells_end_with_the_service(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    word = unique()
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from services.git.cell import Cell, Cells\n"
        "from services.git.command import Command\n"
        "async def main():\n"
        "    async with Cells([Path(sys.argv[1])]) as cells:\n"
        "        cell = Cell(identity=cells.sandbox)\n"
        "        await cells.call(cell, 'echo', {}, timeout=20)\n"
        "        command = Command(name='sh', argv=('sh', '-c', 'setsid sleep ' + sys.argv[2]),"
        " env={'PATH': '/usr/bin:/bin', 'WORD': sys.argv[2]})\n"
        "        async with cells.started(cell, command):\n"
        "            print((await cells.run(cell, Command(name='x', argv=('readlink',"
        " '/proc/self/ns/pid'), env=command.env))).output.decode(), flush=True)\n"
        "            await asyncio.sleep(1000)\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "home"), word],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ":".join([str(root), *sys.path])},
    )
    assert process.stdout
    with process.stdout:
        namespace = process.stdout.readline().decode().strip()
    assert namespace.startswith("pid:")
    assert namespace in _namespaces()
    process.kill()
    process.wait()

    async def is_gone() -> bool:
        return namespace not in _namespaces()

    await until(is_gone)
    assert await eventually_none(word)


def _namespaces() -> set[str]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/ns/pid"):
        try:
            found.add(str(path.readlink()))
        except OSError:
            continue
    return found


_LIAR = """
import socket, struct, sys
end = socket.socket(fileno=int(sys.argv[1]))
end.sendall(struct.pack("!IB", 5, 0) + b"ready")
end.recv(1 << 20)
end.sendall(bytes.fromhex(sys.argv[2]))
end.recv(1 << 20)
"""


@pytest.mark.parametrize(
    "said",
    [
        struct.pack("!IB", 1 << 31, 0),
        struct.pack("!IB", 3, 0) + b"abc",
        struct.pack("!IBIi", 8, 0, 99, 0),
        struct.pack("!IBIi", 8, 1, 1, 0),
        struct.pack("!IB", 8, 0) + b"abc",
    ],
    ids=["too large", "too short", "unknown", "descriptors", "broken off"],
)
async def test_an_agent_that_lies_ends_its_cell_alone(said: bytes) -> None:
    def make(control: int) -> Program:
        argv = [_PYTHON, "-c", _LIAR, str(control), said.hex()]
        if said.endswith(b"abc") and said[3] == 8:
            argv[2] = _LIAR.replace("\nend.recv(1 << 20)\n", "\nend.recv(1 << 20)\n", 1).rsplit(
                "end.recv", 1
            )[0]
        return Program(argv=argv, env=_ENV, descriptors=[control])

    warm = await Warm.start(make)
    running = warm.run(shell("true"), "/", {}, None, None, [])
    try:
        with pytest.raises(CellLost):
            await running.wait()
        assert warm.lost
        with pytest.raises(CellLost):
            warm.run(shell("true"), "/", {}, None, None, [])
    finally:
        await running.close()
        await warm.end()


async def test_a_cell_whose_agent_does_not_start_is_an_error(tmp_path: Path) -> None:
    def make(_: int) -> Program:
        return Program(argv=["sh", "-c", "echo this is why >&2; exit 3"], env=_ENV)

    with pytest.raises(CellUnavailable) as caught:
        await Warm.start(make)
    assert "this is why" in caught.value.metadata["cause"]


def test_frames_are_put_together_with_their_descriptors() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        null = os.open("/dev/null", os.O_RDONLY)
        frames.send(ours, b"one", [null, null])
        frames.send(ours, b"")
        os.close(null)
        incoming = frames.Incoming(theirs)
        frame = incoming.read()
        assert frame
        data, descriptors = frame
        assert (data, len(descriptors)) == (b"one", 2)
        for each in descriptors:
            assert not os.get_inheritable(each)
            os.close(each)
        assert incoming.read() == (b"", [])
        theirs.setblocking(False)
        ours.send(b"\0\0")
        with pytest.raises(BlockingIOError):
            incoming.read()
        ours.close()
        with pytest.raises(WireError, match="broken off"):
            incoming.read()
    with pytest.raises(WireError, match="too many"):
        frames.head(bytes(frames.LIMIT + 1), 0)


@pytest.mark.parametrize(
    "data", [b"", b"x", b"[]", b"\xff", b"[" * 100_000, b"1" * 5000, b'{"a":NaN'], ids=repr
)
def test_what_is_no_payload_is_an_error(data: bytes) -> None:
    with pytest.raises(WireError):
        wire.unpack(data)


def test_bytes_go_through_payloads() -> None:
    names = [bytes(range(256)), b"", "\ud800".encode("utf-8", "surrogatepass")]
    back = wire.unpack(wire.pack({"names": names}))
    assert [wire.as_bytes(text) for text in back["names"]] == names
    for wrong in (1, None, "\u1234"):
        with pytest.raises(WireError):
            wire.as_bytes(wrong)


async def test_a_command_in_a_warm_cell_costs_what_it_costs_without(git: Parts) -> None:
    """Prints ratios; a machine that does other things says nothing about absolute times."""
    cell = Cell(identity=git.cells.sandbox)
    once = Cell(identity=git.cells.sandbox, once=True)
    command = Command(name="git", argv=("git", "rev-parse", "--git-path", "x"), env=_ENV)

    async def plain() -> None:
        process = await asyncio.create_subprocess_exec(
            *command.argv, env=_ENV, stdin=-1, stdout=-1, stderr=-1, cwd="/"
        )
        await process.communicate()

    async def warm() -> None:
        await git.cells.run(cell, command)

    async def cold() -> None:
        await git.cells.run(once, command)

    async def echo() -> None:
        await git.cells.call(cell, "echo", {}, timeout=20)

    times: dict[str, list[float]] = {}
    for _ in range(30):
        for action in (plain, warm, cold, echo):
            began = time.perf_counter()
            await action()
            times.setdefault(action.__name__, []).append(time.perf_counter() - began)
    # Of the quick ones: to the others comes what else the machine does.
    costs = {name: sorted(each)[3] for name, each in times.items()}
    unit = costs["plain"]
    ratios = {name: round(each / unit, 2) for name, each in costs.items()}
    sys.stdout.write(f"\nof a plain command's {unit * 1000:.1f} ms: {ratios}\n")
    assert ratios["warm"] < ratios["cold"]
    assert ratios["echo"] < 1
