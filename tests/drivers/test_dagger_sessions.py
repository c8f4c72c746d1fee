"""Session processes: supervised, replaced, and never left behind; and what engines say."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.dagger import errors
from engines.dagger.pool import Engines
from engines.dagger.settings import Settings
from tests.drivers.dagger_double.process import DoubleEngine, executable
from tests.drivers.dagger_support import bench
from tests.support.suite import children, command_line

UID = "aaaaaaaaaaaaaaaa"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoubleEngine]:
    running = DoubleEngine(tmp_path_factory.mktemp("engine")).start()
    yield running
    running.kill()


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_a_session_is_replaced_after_so_many_uses(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path, engine, operations=2) as node:
        pids = []
        for _ in range(4):
            async with node.engines.default().session() as session:
                assert await session.client.version()
                pids.append(session.pid)
        assert pids[0] == pids[1] != pids[2] == pids[3]
    assert all(map(_gone, pids))


async def test_a_session_that_is_killed_is_told_and_the_next_call_has_another(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path, engine) as node:
        async with node.engines.default().session() as session:
            os.killpg(session.pid, signal.SIGKILL)
            await session.lost.wait()
        assert await node.engines.version()


async def test_an_engine_that_restarted_is_noticed_and_its_sessions_are_made_anew(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path, engine) as node:
        assert await node.engines.version()
        engine.kill()
        engine.start()
        with pytest.raises(errors.EngineLost):
            await node.engines.version()
        assert await node.engines.version()


async def test_an_engine_that_does_not_answer_leaves_no_process(tmp_path: Path) -> None:
    nobody = DoubleEngine(tmp_path / "nobody")
    async with bench(tmp_path / "node", nobody, start=0.5) as node:
        with pytest.raises(errors.EngineLost):
            await node.engines.version()
    assert _children() == []


async def test_a_caller_that_leaves_while_a_session_starts_leaves_no_process(
    tmp_path: Path,
) -> None:
    nobody = DoubleEngine(tmp_path / "nobody")
    async with bench(tmp_path / "node", nobody) as node:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(node.engines.version(), 0.3)
        assert _children() == []


async def test_what_a_command_writes_is_seen_while_it_runs(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path, engine) as node:
        await node.create(UID, node.tree())
        heard = asyncio.Event()
        seen: list[tuple[int, bytes]] = []

        def listen(stream: int, data: bytes) -> None:
            seen.append((stream, data))
            heard.set()

        argv = ["sh", "-c", "echo early; while [ ! -e go ]; do sleep 0.05; done"]
        running = asyncio.create_task(node.preview(UID, argv, listen))
        async with asyncio.timeout(60):
            await heard.wait()
        assert seen == [(1, b"early\n")]
        assert not running.done()
        running.cancel()
        await asyncio.wait((running,))


def test_without_an_engine_or_a_cli_it_is_said_what_is_missing(tmp_path: Path) -> None:
    made = Settings.from_env({}, tmp_path, tmp_path, "n")
    with pytest.raises(errors.EngineUnavailable) as unavailable:
        Engines(made).default()
    assert "COVE_DAGGER__ENGINES" in unavailable.value.remedy
    env = {"COVE_DAGGER__ENGINES": "main=unix:///x", "PATH": str(tmp_path)}
    with pytest.raises(errors.EngineUnavailable) as unavailable:
        Settings.from_env(env, tmp_path, tmp_path, "n").usable()
    assert "_EXPERIMENTAL_DAGGER_CLI_BIN" in unavailable.value.remedy
    both = {**env, "_EXPERIMENTAL_DAGGER_CLI_BIN": str(executable(tmp_path))}
    assert Settings.from_env(both, tmp_path, tmp_path, "n").usable()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COVE_DAGGER__ENGINES", "unix:///x"),
        ("COVE_DAGGER__ENGINES", "a=http://x"),
        ("COVE_DAGGER__ENGINES", "a=unix:///x,a=unix:///y"),
        ("COVE_DAGGER__GENERATIONS", "441"),
        ("_EXPERIMENTAL_DAGGER_RUNNER_HOST", "somewhere"),
    ],
)
def test_a_bad_variable_is_named(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        Settings.from_env({name: value}, tmp_path, tmp_path, "n")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ('waiting for client session attachables for client "x": timeout', errors.EngineLost),
        ("server shutting down", errors.EngineLost),
        ("session abc not found", errors.EngineLost),
        ("failed to resolve x: dial tcp: lookup x: i/o timeout", errors.EngineLost),
        ("missing shared result 12", errors.HandleStale),
        ("cannot use internal argument", errors.HandleStale),
        ("write /x: no space left on device", errors.EngineFull),
        ("failed to mount: invalid argument: mount options is too long", errors.TooManyLayers),
        ("failed to resolve image x: manifest unknown: not found", errors.ImageNotFound),
        ("pull access denied, authorization failed", errors.ImageDenied),
        ("failed to lstat x: no such file or directory", errors.PathNotFound),
        ("something nobody has thought of", errors.EngineDefect),
    ],
)
def test_what_an_engine_says_means_one_thing(said: str, meant: type[Exception]) -> None:
    assert type(errors.failure(said)) is meant


def test_only_a_failed_command_has_a_type_of_its_own() -> None:
    found = errors.failure(
        "exit code: 137", {"_type": "EXEC_ERROR", "exitCode": 137, "stdout": "o", "stderr": "e"}
    )
    assert isinstance(found, errors.CommandLost)
    assert (found.code, found.output, found.errors) == (137, b"o", b"e")


def _children() -> list[int]:
    """Of this process, those of the doubled CLI."""
    own = children(os.getpid())
    return [pid for pid in own if "['session']()" in " ".join(command_line(pid))]
