"""`cove doctor`, on this very host: it tries what the suite would do."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agent.launcher.cgroups import group_name
from cove.endpoint import FILE
from tests.support.people import as_user
from tests.support.suite import children, command_line, running_suite, until

NOBODY = 61_234
"""A uid that has no processes."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def base() -> Iterator[Path]:
    """Short, and to be reached by everybody."""
    folder = Path(tempfile.mkdtemp(prefix="cv-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def said(
    state: Path, *arguments: str, before: Sequence[str] = (), user: int | None = None, **env: str
) -> tuple[int, str]:
    """Exit status and output; nothing may go to the standard error."""
    argv = [sys.executable, "-P", "-m", "cove", "doctor", "--state", str(state), *arguments]
    process = await asyncio.create_subprocess_exec(
        *before,
        *(as_user(user, argv) if user is not None else argv),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "COVE_GATEWAY__GRPC": "127.0.0.1:0",
            "COVE_GATEWAY__HTTP": "127.0.0.1:0",
            **env,
        },
    )
    async with asyncio.timeout(50):
        stdout, stderr = await process.communicate()
    assert stderr == b""
    assert process.returncode is not None
    return process.returncode, stdout.decode()


async def checks(state: Path, *arguments: str, **more: Any) -> tuple[int, dict[str, Any]]:
    """Exit status and findings by name."""
    status, text = await said(state, "--json", *arguments, **more)
    answer = json.loads(text)
    assert answer["workspaces"] == (status == 0)
    assert all(each["remedy"] or each["level"] == "ok" for each in answer["checks"])
    return status, {each["check"]: each for each in answer["checks"]}


def left_since(before: set[Path]) -> set[Path]:
    """Control groups that are new and of no launcher that runs: other tests have theirs."""
    running = set()
    for entry in Path("/proc").glob("[0-9]*"):
        words = command_line(int(entry.name))
        if "agent.launcher" in words and "--runtime" in words[:-1]:
            running.add(group_name(Path(words[words.index("--runtime") + 1])))
    return {each for each in groups() - before if not running.intersection(each.parts)}


def groups() -> set[Path]:
    """Control groups of launchers, in which no process is."""
    found = set()
    for folder, names, _ in os.walk("/sys/fs/cgroup"):  # Which bears what goes meanwhile.
        for group in [Path(folder, name) for name in names if name.startswith("cove-")]:
            with suppress(OSError):  # Of another suite, which ends.
                if not any(each.read_text().strip() for each in group.glob("**/cgroup.procs")):
                    found.add(group)
    return found


async def test_a_host_that_can_is_told_so_and_nothing_is_left(base: Path) -> None:
    (base / "t").mkdir()
    before = groups()
    status, found = await checks(base / "state", TMPDIR=str(base / "t"))
    assert status == 0, found
    assert {"python", "bubblewrap", "namespaces", "overlayfs", "sandbox", "limits"} <= set(found)
    assert {"git", "ssh", "state", "disk", "sockets", "suite", "clock"} <= set(found)
    assert found["sandbox"]["found"].startswith("made for a moment: ")
    assert found["git"]["found"].endswith(", in a cell")
    assert found["port grpc"]["level"] == "ok"
    mounted = re.search(r"^\S+ \S+ cgroup2 (\S+)", Path("/proc/self/mounts").read_text(), re.M)
    assert ("groups" in found) == (os.geteuid() == 0 and bool(mounted))
    if mounted and "groups" in found:
        assert (found["groups"]["level"] == "ok") == ("favordynmods" in mounted[1].split(","))
    assert [each.name for each in base.iterdir()] == ["t"]
    assert list((base / "t").iterdir()) == []
    await until(lambda: not left_since(before), "no group is left")


async def test_one_that_is_ended_leaves_nothing_running(base: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-P", "-m", "cove", "doctor", "--state", str(base / "state")],
        stdout=asyncio.subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )

    found: list[int] = []

    def started() -> bool:
        found[:] = [pid for pid in children(process.pid) if "agent.launcher" in command_line(pid)]
        return bool(found)

    await until(started, "the launcher is started")
    (launcher,) = found
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(30):
        await process.wait()
    await until(lambda: not command_line(launcher), "the launcher is gone")


async def test_a_person_reads_a_table(base: Path) -> None:
    status, text = await said(base / "state")
    lines = text.splitlines()
    assert status == 0
    assert lines[-1] == "workspaces can be made here"
    starts = {line.index(word) for line in lines for word in ("python ", "git ", "state ") if
              line.startswith("ok") and f" {word}" in line[:12]}  # fmt: skip
    assert starts == {6}
    assert "\x1b" not in text


async def test_a_suite_that_runs_is_asked(tmp_path: Path) -> None:
    async with running_suite(tmp_path) as suite:
        runtime = ["--runtime", str(suite.runtime)]
        status, found = await checks(suite.state, *runtime)
        assert status == 0
        assert found["sandbox"]["found"].startswith("made by the launcher that runs: ")
        assert found["suite"]["found"].startswith("11 services serve, gRPC at 127.0.0.1:")
        assert "port grpc" not in found
        pid = suite.pid("executor")
        os.kill(pid, signal.SIGSTOP)
        try:
            status, found = await checks(suite.state, *runtime)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert status == 1
        assert "cove.executor.v1.FileService UNREACHABLE" in found["suite"]["found"]


async def test_what_a_killed_suite_left_is_no_suite(base: Path) -> None:
    state = base / "state"
    state.mkdir(mode=0o700)
    (state / FILE).write_text(json.dumps({"grpc": "127.0.0.1:1", "services": {}}))
    status, found = await checks(state)
    assert (status, found["suite"]["level"]) == (0, "warn")
    assert found["suite"]["remedy"] == f"cove up --state {state}"


async def test_a_state_directory_that_is_open_to_others(base: Path) -> None:
    (base / "state").mkdir(mode=0o755)
    (base / "state").chmod(0o755)
    status, found = await checks(base / "state")
    assert (status, found["state"]["level"]) == (1, "fail")
    assert found["state"]["remedy"] == f"chmod 0700 {base}/state"


async def test_a_path_that_is_too_long_for_a_socket(base: Path) -> None:
    status, found = await checks(base / "state", "--runtime", f"/tmp/{'x' * 90}")
    assert (status, found["sockets"]["level"]) == (1, "fail")


async def test_a_port_that_is_taken_can_be_another(base: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, found = await checks(base / "state", COVE_GATEWAY__GRPC=address)
    assert (status, found["port grpc"]["level"]) == (0, "warn")
    assert found["port grpc"]["remedy"] == "cove up --grpc 127.0.0.1:0"


async def test_user_namespaces_that_are_switched_off(base: Path) -> None:
    """In a user namespace that allows no more of them, as a host may."""
    off = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    before = ["unshare", "--user", "--map-root-user", "sh", "-c", off, "sh"]
    status, found = await checks(base / "state", before=before)
    assert status == 1
    for name in ("namespaces", "sandbox"):
        assert found[name]["level"] == "fail"
        assert found[name]["found"] == "user namespaces are switched off"
        assert found[name]["remedy"] == "sysctl -w user.max_user_namespaces=15000"
    assert found["git"]["level"] == "fail"


@needs_root
async def test_an_ordinary_user_is_told_what_is_weaker(base: Path) -> None:
    home = base / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    status, found = await checks(home / "state", user=NOBODY)
    assert status == 0, found
    assert found["sandbox"]["found"].endswith("set up by this user")
    assert found["limits"]["level"] == "warn"
    assert "cove up" in found["limits"]["remedy"]
    (base / "closed").mkdir(mode=0o700)
    status, found = await checks(base / "closed" / "state", user=NOBODY)
    assert (status, found["state"]["level"]) == (1, "fail")
