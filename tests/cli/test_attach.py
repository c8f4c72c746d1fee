"""`cove exec -i -t` and `cove attach`, before real terminals."""

import asyncio
import fcntl
import os
import re
import signal
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cove.cli.commands.running import _keys
from cove.cli.terminal import Keys
from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="package")

_LEAVE = b"\x10\x11"


class Person:
    """Sits at a terminal, in which a command of ours runs."""

    def __init__(self, suite: Suite, *arguments: str) -> None:
        self._suite = suite
        self._arguments = arguments
        self.seen = b""

    async def __aenter__(self) -> "Person":
        self._ours, self._theirs = os.openpty()
        self.size(24, 80)
        self.before = termios.tcgetattr(self._theirs)
        os.set_blocking(self._ours, False)
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        self._came = asyncio.Event()
        self.process = await asyncio.create_subprocess_exec(
            *("setsid", "--ctty", *self._suite.command(*self._arguments)),
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env={**self._suite.env, "COVE_STATE": str(self._suite.state), "TERM": "vt100"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)
        os.close(self._theirs)

    def size(self, rows: int, cols: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("4H", rows, cols, 0, 0))

    async def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    async def sees(self, what: bytes) -> None:
        async with asyncio.timeout(30):
            while not re.search(what, self.seen, re.DOTALL):
                self._came.clear()
                await self._came.wait()

    async def leaves(self) -> int:
        """Its exit status; the terminal is as it was."""
        async with asyncio.timeout(30):
            status = await self.process.wait()
        assert termios.tcgetattr(self._theirs) == self.before, self.seen
        return status

    async def is_raw(self) -> None:
        async with asyncio.timeout(30):
            while termios.tcgetattr(self._theirs)[3] & termios.ICANON:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def _read(self) -> None:
        try:
            self.seen += os.read(self._ours, 1 << 16)
        except OSError:
            return
        self._came.set()


@asynccontextmanager
async def shell(suite: Suite, demo: str, name: str) -> AsyncIterator[None]:
    """A shell on a terminal that nobody sits at."""
    begun = await suite.cove("exec", "-itd", "--id", name, demo, "sh")
    assert begun.text == f"{name}\n", begun.errors
    yield
    await suite.cove("kill", "-s", "KILL", "--scope", "tree", demo, name)


async def test_a_shell_on_a_terminal(suite: Suite, demo: str) -> None:
    async with Person(suite, "exec", "-it", demo, "sh") as person:
        await person.sees(rb"\$ ")
        await person.is_raw()
        await person.type(b"stty size; echo $TERM; tty\r")
        await person.sees(rb"\n24 80\r\nvt100\r\n/dev/pts/\d+\r\n.*\$ ")
        person.size(33, 99)
        await person.type(b"until [ \"$(stty size)\" = '33 99' ]; do :; done; echo fits\r")
        await person.sees(rb"\nfits\r\n.*\$ ")
        await person.type(b"sh -c 'echo rea''dy; exec sleep 60'\r")
        await person.sees(rb"\nready\r\n")
        await person.type(b"\x03")
        await person.sees(rb"ready\r\n\^C.*\$ ")
        await person.type(b"echo st$?\r")
        await person.sees(rb"\nst130\r\n")
        await person.type(b"exit 7\r")
        assert await person.leaves() == 7


async def test_one_leaves_and_comes_back_and_another_looks_on(suite: Suite, demo: str) -> None:
    async with shell(suite, demo, "long"):
        async with Person(suite, "attach", demo, "long") as first:
            await first.sees(rb"\$ ")
            await first.type(b"echo o''ne\r")
            await first.sees(rb"\none\r\n")
            await first.type(b"\x10" + b"\x11")
            assert await first.leaves() == 0
            assert b"left; it goes on: cove attach demo long\r\n" in first.seen
        async with (
            Person(suite, "attach", demo, "long") as again,
            Person(suite, "attach", "--read-only", demo, "long") as looking,
        ):
            await again.sees(rb"\none\r\n")
            await again.type(b"echo t''wo\r")
            for each in (again, looking):
                await each.sees(rb"\ntwo\r\n")
            looking.process.send_signal(signal.SIGINT)
            assert await looking.leaves() == 130
            refused = await suite.cove("attach", demo, "long")
            assert refused.status == 1
            assert "take-over" in refused.errors
            async with Person(suite, "attach", "--take-over", demo, "long") as taking:
                await again.sees(rb"another one writes now")
                await taking.type(b"echo th''ree\r")
                for each in (again, taking):
                    await each.sees(rb"\nthree\r\n")
                await taking.type(b"exit\r")
                assert await taking.leaves() == 0
            assert await again.leaves() == 0


_LONG = pytest.mark.long


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGHUP, marks=_LONG),
        pytest.param(signal.SIGQUIT, marks=_LONG),
    ],
)
async def test_a_terminal_is_restored_whatever_ends_it(
    suite: Suite, demo: str, number: signal.Signals
) -> None:
    name = f"s{number}"
    async with shell(suite, demo, name), Person(suite, "attach", demo, name) as person:
        await person.sees(rb"\$ ")
        await person.is_raw()
        person.process.send_signal(number)
        assert await person.leaves() == 128 + number


@_LONG
async def test_a_terminal_outlives_the_services(suite: Suite, demo: str) -> None:
    async with Person(suite, "exec", "-it", demo, "sh") as person:
        await person.sees(rb"\$ ")
        for service in ("executor", "gateway"):
            await suite.kill(service)
            await person.type(b"echo after " + service.encode() + b"\r")
            await person.sees(rb"\nafter " + service.encode())
        await person.type(b"exit 4\r")
        assert await person.leaves() == 4
        assert person.seen.count(b"\nafter executor\r\n") == 1


async def test_a_pipe_is_passed_on(suite: Suite, demo: str) -> None:
    data = b"".join(b"%d\n" % number for number in range(200_000))
    done = await suite.cove("exec", "-i", demo, "cat", stdin=data)
    assert (done.status, done.stdout, done.stderr) == (0, data, b"")
    empty = await suite.cove("exec", "-i", demo, "wc", "-c", stdin=b"")
    assert empty.text.strip() == "0"


async def test_who_does_not_read_ends_all_the_same(suite: Suite, demo: str) -> None:
    done = await suite.cove("exec", "-i", demo, "sh", "-c", "exit 3", stdin=bytes(2_000_000))
    assert (done.status, done.stderr) == (3, b"")
    part = await suite.cove("exec", "-i", demo, "head", "-c", "3", stdin=b"abc" * 1_000_000)
    assert (part.status, part.stdout) == (0, b"abc")


async def test_a_terminal_wants_one(suite: Suite, demo: str) -> None:
    done = await suite.cove("exec", "-it", demo, "sh")
    assert done.status == 2
    assert "no terminal" in done.errors
    without = await suite.cove("exec", "-t", demo, "sh", "-c", "test -t 1 && echo yes")
    assert (without.status, without.stdout) == (0, b"yes\r\n")


async def test_what_has_no_input_is_looked_at(suite: Suite, demo: str) -> None:
    await suite.cove("exec", "-d", "--id", "deaf", demo, "echo", "heard")
    done = await suite.cove("attach", demo, "deaf")
    assert (done.status, done.stdout) == (0, b"heard\n")


async def test_the_keys_that_leave_are_found_among_others() -> None:
    keys = Keys(_LEAVE)
    assert keys.typed(b"a\x10") == (b"a", False)
    assert keys.typed(b"b") == (b"\x10b", False)
    assert keys.typed(b"\x10\x10\x11c") == (b"\x10", True)
    assert Keys(b"").typed(_LEAVE) == (_LEAVE, False)
    assert (_keys("ctrl-p,ctrl-q"), _keys("ctrl-],x"), _keys("none")) == (_LEAVE, b"\x1dx", b"")
