"""A suite that is attacked, and what must be as it was when the attack is over."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from servicekit.incoming import SECONDS
from tests.support.repository import make_repository
from tests.support.suite import SERVICES, Suite, running_suite

_GROWTH: Final = 48 << 20
_DESCRIPTORS: Final = 24
_SETTLED: Final = SECONDS + 15
"""Seconds: a request that does not come is waited for that long, and a little."""


class Watched:
    def __init__(self, suite: Suite, repository: str, metrics: Path) -> None:
        self.suite = suite
        self.repository = repository
        self._metrics = metrics

    @contextmanager
    def unharmed(self) -> Iterator[None]:
        """What runs in the block kills no service, leaves no call open, no descriptor and no
        memory, and has nobody write a traceback."""
        pids = {service: self.suite.pid(service) for service in SERVICES}
        before = {name: (_descriptors(pid), _resident(pid)) for name, pid in pids.items()}
        said = len(self.suite.log.read_bytes())
        yield
        assert {service: self.suite.pid(service) for service in SERVICES} == pids
        told = self.suite.log.read_bytes()[said:]
        assert b"Traceback" not in told, told[-4000:].decode()
        assert b'"level": "error"' not in told, [
            line for line in told.decode().splitlines() if '"level": "error"' in line
        ][:5]
        deadline = time.monotonic() + _SETTLED
        while wrong := self._left(pids, before):
            assert time.monotonic() < deadline, wrong
            time.sleep(0.1)

    def _left(self, pids: dict[str, int], before: dict[str, tuple[int, int]]) -> str:
        if left := self._open_calls():
            return f"open calls: {left}"
        for name, pid in pids.items():
            descriptors, resident = before[name]
            if _descriptors(pid) > descriptors + _DESCRIPTORS:
                return f"{name} has {_descriptors(pid)} descriptors, {descriptors} before"
            if _resident(pid) > resident + _GROWTH:
                return f"{name} has {_resident(pid)} bytes, {resident} before"
        return ""

    def _open_calls(self) -> list[str]:
        """Calls of the gateway that go on, as its metrics tell."""
        return asyncio.run(self._asked())

    async def _asked(self) -> list[str]:
        reader, writer = await asyncio.open_unix_connection(str(self._metrics))
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        lines = [line for line in text.splitlines() if line.startswith("cove_calls_open{")]
        assert text
        return [line for line in lines if not line.endswith(" 0.0")]


def _descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[Watched]:
    repository = folder / "app"
    make_repository(repository, {"README.md": "hello\n", "src/main.py": "print(1)\n"})
    metrics = folder / "metrics"
    env = {"COVE_GATEWAY__ADMIN_ADDRESS": f"unix:{metrics}", "COVE_GATEWAY__STRANGER_RATE": "0"}
    async with running_suite(folder / "suite", env=env) as suite:
        yield Watched(suite, f"file://{repository}", metrics)
