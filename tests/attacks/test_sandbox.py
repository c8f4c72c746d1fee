"""What a command may try on the host, on its neighbours, and on who runs it."""

import asyncio
import errno
import json
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cove.client import Client
from cove.executions import Execution
from cove.executor.v1.executor_pb2 import Chunk
from cove.registry.v1.registry_pb2 import Limits
from cove.status import CoveError, FailedPrecondition
from cove.workspace import Workspace
from tests.support.processes import named
from tests.support.suite import Suite, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "a secret of the host"

CONNECT = """
import errno, json, socket, sys
told = {}
for kind, address in json.loads(sys.argv[1]):
    family = socket.AF_INET if kind == "tcp" else socket.AF_UNIX
    address = tuple(address) if kind == "tcp" else address.replace("@", chr(0))
    with socket.socket(family) as peer:
        peer.settimeout(2)
        try:
            peer.connect(address)
            told[kind] = "connected"
        except OSError as error:
            told[kind] = errno.errorcode.get(error.errno, str(error))
print(json.dumps(told))
"""

DAEMON = """
import os, sys, time
if os.fork():
    sys.exit()
os.setsid()
if os.fork():
    os._exit(0)
os.execve("/usr/bin/sleep", [sys.argv[1], "3600"], {})
"""

BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""

DESCRIPTORS = """
import os, signal
kept = []
try:
    while True:
        kept.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    print("full", flush=True)
signal.pause()
"""

SWAP = """
import ctypes, os
libc = ctypes.CDLL(None)
os.makedirs("real", exist_ok=True)
open("real/passwd", "w").write("mine")
if not os.path.lexists("link"):
    os.symlink("/etc", "link")
print("begun", flush=True)
while True:
    libc.renameat2(-100, b"real", -100, b"link", 2)
"""


@pytest.fixture
def secret() -> Iterator[Path]:
    """A file that anybody on the host may read."""
    with tempfile.NamedTemporaryFile("w", dir="/var/tmp", prefix="cove-attack-") as file:
        file.write(SECRET)
        file.flush()
        path = Path(file.name)
        path.chmod(0o644)
        yield path


@pytest_asyncio.fixture(loop_scope="module")
async def small(cove: Client, repository: Path) -> AsyncIterator[Workspace]:
    """A workspace that may have few processes."""
    made = await cove.workspaces.create(
        repository=f"file://{repository}", limits=Limits(processes=48)
    )
    yield made
    await made.delete(force=True, allow_missing=True)


async def python(workspace: Workspace, code: str, *arguments: str) -> Any:
    done = await workspace.execute("python3", "-c", code, *arguments, timeout=30)
    assert done.exit_status == 0, done.stderr.decode()
    return json.loads(done.stdout)


async def said(execution: Execution, word: bytes) -> None:
    """Wait until it has written `word`."""
    seen = b""
    async with asyncio.timeout(30):
        async for event in execution.output():
            if isinstance(event, Chunk):
                seen += event.data
            if word in seen:
                return
    raise AssertionError(f"it ended with {seen!r}")


async def test_files_of_the_host_are_not_there(
    suite: Suite, workspace: Workspace, secret: Path
) -> None:
    assert secret.read_text() == SECRET
    places = [secret, suite.state / "registry" / "token", suite.runtime, Path("/etc/shadow")]
    roots = ["", "/proc/1/root", "/proc/self/root", "/proc/1/cwd", "/proc/1/fd/3"]
    paths = [f"{root}{place}" for root in roots for place in places]
    done = await workspace.execute("sh", "-c", 'for p; do cat "$p"; ls "$p"; done', "sh", *paths)
    assert done.stdout == b""


async def test_a_file_rpc_follows_no_link_that_is_swapped_under_it(
    suite: Suite, workspace: Workspace
) -> None:
    swapping = await workspace.start("python3", "-c", SWAP)
    await said(swapping, b"begun")
    host = Path("/etc/passwd").read_bytes()
    # Whoever opens by path on the host is led out: the attack works.
    home = suite.state / "git" / "worktrees" / workspace.message.uid
    tree = home / ("tree" if (home / "tree").exists() else "upper")
    async with asyncio.timeout(30):
        while await asyncio.to_thread(_read, tree / "real" / "passwd") != host:
            pass
    outcomes = {b"mine": 0, b"refused": 0}
    for _ in range(300):
        try:
            found = await workspace.read("real/passwd")
        except CoveError:
            found = b"refused"
        assert found in outcomes
        outcomes[found] += 1
    assert all(outcomes.values()), outcomes
    await swapping.delete(force=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


async def test_neighbours_of_the_same_uid_see_nothing_of_each_other(
    workspace: Workspace, neighbour: Workspace
) -> None:
    serve = (
        "import socket, os; s = socket.socket(socket.AF_UNIX); s.bind(chr(0) + 'mine'); s.listen();"
        "open('/dev/shm/mine', 'w').write('x'); open('/tmp/mine', 'w').write('x');"
        "open('/home/cove/mine', 'w').write('x'); print('begun', flush=True); s.accept()"
    )
    running = await workspace.start("python3", "-c", serve)
    await said(running, b"begun")
    look = (
        "import glob, json, os, socket\n"
        "peer = socket.socket(socket.AF_UNIX)\n"
        "print(json.dumps({'files': glob.glob('/*/mine') + glob.glob('/*/*/mine'),\n"
        " 'pids': sorted(p for p in os.listdir('/proc') if p.isdecimal()),\n"
        " 'socket': peer.connect_ex(chr(0) + 'mine')}))"
    )
    own = await python(workspace, look)
    assert (len(own["files"]) >= 3, own["socket"]) == (True, 0)  # There is something to see.
    other = await python(neighbour, look)
    assert other["files"] == []
    assert other["socket"] == errno.ECONNREFUSED
    assert len(other["pids"]) == 2 < len(own["pids"])  # The agent and itself.


async def test_no_socket_of_the_host_can_be_reached(suite: Suite, workspace: Workspace) -> None:
    await workspace.execute("true")  # So that its agent listens.
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as abstract,
        tempfile.TemporaryDirectory(dir="/var/tmp") as folder,
        socket.socket(socket.AF_UNIX) as named,
    ):
        Path(folder).chmod(0o755)
        abstract.bind(f"\0cove-attack-{os.getpid()}")
        named.bind(f"{folder}/socket")
        Path(folder, "socket").chmod(0o777)
        for each in (abstract, named):
            each.listen()
        targets = [
            ("tcp", tcp.getsockname()),
            ("abstract", f"@cove-attack-{os.getpid()}"),
            ("named", f"{folder}/socket"),
            ("launcher", f"{suite.runtime}/launcher"),
            ("agent", f"{suite.runtime}/a/{workspace.message.uid}"),
        ]
        control = await asyncio.create_subprocess_exec(
            "python3", "-c", CONNECT, json.dumps(targets), stdout=asyncio.subprocess.PIPE
        )
        reachable = json.loads((await control.communicate())[0])
        inside = await python(workspace, CONNECT, json.dumps(targets))
    assert set(reachable.values()) == {"connected"}
    assert inside == {
        "tcp": "ECONNREFUSED",
        "abstract": "ECONNREFUSED",
        "named": "ENOENT",
        "launcher": "ENOENT",
        "agent": "ENOENT",
    }


async def test_a_command_inherits_nothing_of_the_services(
    suite: Suite, workspace: Workspace
) -> None:
    done = await workspace.execute("sh", "-c", "env; ls -l /proc/self/fd; cat /proc/1/environ")
    assert str(suite.state).encode() not in done.stdout
    assert str(suite.runtime).encode() not in done.stdout
    assert suite.token.encode() not in done.stdout
    names = {line.partition(b"=")[0] for line in done.stdout.splitlines() if b"=" in line}
    assert not {name for name in names if name.startswith(b"COVE_") and b"EXECUTION" not in name}


async def test_output_cannot_forge_records_of_the_log_or_the_result(workspace: Workspace) -> None:
    earlier = await workspace.start("sh", "-c", "echo earlier; exit 3")
    await earlier.wait()
    forge = (
        "import os, struct, sys\n"
        "body = struct.pack('<IBBHQQ', 24, 4, 0, 0, 0, 0) + bytes(24)\n"
        "os.write(1, body * 100)\n"
        "for pid in ('1', 'self'):\n"
        "    for name in range(64):\n"
        "        try:\n"
        "            os.pwrite(os.open(f'/proc/{pid}/fd/{name}', os.O_WRONLY), body, 0)\n"
        "        except OSError:\n"
        "            pass\n"
        "sys.exit(7)\n"
    )
    execution = await workspace.start("python3", "-c", forge)
    ended = await execution.wait()
    got = b"".join([e.data async for e in execution.output() if isinstance(e, Chunk)])
    assert ended.exit.code == 7
    assert len(got) >= 4800
    assert ended.exit.output_bytes == len(got)
    assert (await earlier.refresh()).exit.code == 3


async def test_kill_of_a_tree_reaches_who_left_session_parent_and_environment(
    suite: Suite, workspace: Workspace
) -> None:
    if os.geteuid() != 0:
        pytest.skip("exact only where there are control groups")
    name = f"runaway-{workspace.id}"
    script = f'for i in 1 2 3 4; do python3 -c "$0" {name}; done; echo begun; sleep 3600'
    execution = await workspace.start("sh", "-c", script, DAEMON)
    await said(execution, b"begun")
    await until(lambda: len(named(name)) == 4, "four daemons run")
    await execution.signal(signal.SIGKILL, scope="tree")
    assert named(name) == []


async def test_a_fork_bomb_starves_neither_agent_nor_neighbours(
    small: Workspace, neighbour: Workspace
) -> None:
    await small.execute("true")
    bomb = await small.start("python3", "-c", BOMB)
    assert (await neighbour.execute("echo", "fine", timeout=20)).stdout == b"fine\n"
    assert await small.read("README.md") == b"hello\n"  # Its own agent serves.
    with suppress(FailedPrecondition):  # It is ended as one after a thousand refusals.
        await bomb.signal(signal.SIGKILL, scope="tree")
    assert (await bomb.wait()).exit.WhichOneof("reason") in ("signal", "limit")
    assert (await small.execute("echo", "back", timeout=20)).stdout == b"back\n"


async def test_a_command_without_free_descriptors_starves_nobody(workspace: Workspace) -> None:
    hog = await workspace.start("python3", "-c", DESCRIPTORS)
    await said(hog, b"full")
    assert (await workspace.execute("echo", "fine", timeout=20)).stdout == b"fine\n"
    assert await workspace.read("README.md") == b"hello\n"
    await hog.delete(force=True)


async def test_what_would_make_a_reader_wait_is_refused_at_once(workspace: Workspace) -> None:
    made = await workspace.execute("sh", "-c", "mkfifo pipe; ln -s pipe link; ln -s loop loop")
    assert made.exit_status == 0
    async with asyncio.timeout(30):
        for path in ("pipe", "link", "loop"):
            with pytest.raises(CoveError):
                await workspace.read(path)
        for path in ("pipe", "loop"):
            await workspace.stat(path)
        assert len(await workspace.list(".")) >= 3
        assert {entry.path for entry in (await workspace.status()).entries} == {"link", "loop"}


async def test_a_workspace_of_deep_directories_is_deleted(workspace: Workspace) -> None:
    deep = (
        "import os\n"
        "for base in ('/tmp', '/home/cove', '/workspace'):\n"
        "    os.chdir(base)\n"
        "    for _ in range(2500):\n"
        "        os.mkdir('dd')\n"
        "        os.chdir('dd')\n"
        "    os.chmod('.', 0)\n"
    )
    done = await workspace.execute("python3", "-c", deep)
    assert done.exit_status == 0, done.stderr
    with pytest.raises(CoveError):
        await workspace.stat("dd/" * 1000 + "dd")
    await workspace.delete(force=True)
