"""Runs a way to install Cove, and uses it: `python -m tests.kubernetes.machine WAY DIRECTORY`.

In namespaces of its own: of the network, where all ports are free and nothing outside is reached,
of mounts, and of processes, so that nothing stays behind.
"""

import asyncio
import fcntl
import os
import pwd
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from agent.launcher.cgroups import group_name
from cove.client import Client
from cove.executor.v1.executor_pb2 import Chunk
from tests.kubernetes.kubelet import GROUPS, NODE, Container, Kubelet
from tests.kubernetes.manifests import FOLDER, MTLS, SINGLE, of_kind, pods

TOKEN: Final = "cove_operator"
PASSWORD: Final = "p:w/d%41"
NAMES: Final = ["cove-registry", "cove-database", "cove-nodes.cove-nodes.svc"]
GRACE: Final = 30.0
SERVICES: Final = ("git", "provider", "executor")
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def main(way: str, folder: Path) -> None:
    _up()
    # For what another user than root has to reach.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
    _drive(way, folder, Kubelet(folder, of_kind(way, "Service"), _secrets(way, folder), NAMES))


def _drive(way: str, folder: Path, kubelet: Kubelet) -> None:
    made = pods(way)
    database = None if way == SINGLE else Database(Path("/run/database"))
    if database:
        database.start()
    registry = kubelet.run(made["cove-registry"])["registry"]
    node = kubelet.run(made["cove-node"])
    gateway = kubelet.run(made["cove-gateway"])["gateway"]
    for each in (registry, gateway, *node.values()):
        each.becomes("readinessProbe")
        if "livenessProbe" in each.spec:
            each.becomes("livenessProbe")
    say("all are alive and ready, by the probes of the manifests")
    asyncio.run(_work(node))
    if database:
        _outage(database, registry, gateway)
    for each in (gateway, registry, *(node[name] for name in SERVICES)):
        status = each.end(GRACE)
        assert status == 0, f"{each.name}: {status}: {each.said()}"
    for name in ("egress", "launcher"):
        status = node[name].end(GRACE)
        assert status == 0, f"{name}: {status}: {node[name].said()}"
    say("all ended by themselves, the launcher last")
    if database:
        database.end()


async def _work(node: dict[str, Container]) -> None:
    async with Client("127.0.0.1:7420", TOKEN) as cove:
        told = await cove.capabilities()
        assert [(each.name, each.answers) for each in told.nodes] == [(NODE, True)], told
        workspace = await cove.workspaces.create(id="first")
        ran = await workspace.execute("sh", "-c", "id -u; echo 1 > new")
        assert ran.text == "60900\n", ran
        await workspace.commit("Add a file")
        # What runs goes on while the services of its node are replaced.
        script = "for i in $(seq 1 200); do echo $i; [ -e stop ] && exit; sleep 0.1; done"
        running = await workspace.start("sh", "-c", script)
        # Launcher and executor are in control groups of their own, and mean the same by a path.
        own = GROUPS / group_name(Path("/run/cove/node")) / workspace.message.uid
        assert [*own.glob("x-*")], [*own.iterdir()]
        for name in SERVICES:
            assert await asyncio.to_thread(node[name].end, GRACE) == 0, node[name].said()
            node[name].start()
            await asyncio.to_thread(node[name].becomes, "readinessProbe")
        await workspace.write("stop", b"")
        said = b"".join([each.data async for each in running.output() if isinstance(each, Chunk)])
        end = (await running.wait()).exit
        assert end.WhichOneof("reason") == "code", end
        assert said.split() == [b"%d" % number for number in range(1, len(said.split()) + 1)]
        say(f"a command ran through restarts of {', '.join(SERVICES)}: {len(said.split())} lines")
        await workspace.delete(force=True)


def _outage(database: "Database", registry: Container, gateway: Container) -> None:
    """Of another is no reason to be killed; to be ready takes what it needs."""
    database.end()
    for _ in range(3):
        assert registry.well("livenessProbe")
        assert gateway.well("livenessProbe")
        time.sleep(0.3)
    database.start()
    asyncio.run(_listed())
    os.kill(registry.pid, signal.SIGSTOP)
    gateway.becomes("readinessProbe", False)
    assert gateway.well("livenessProbe")
    os.kill(registry.pid, signal.SIGCONT)
    gateway.becomes("readinessProbe")
    say("an outage of the database, or of the registry, is no reason to kill anybody")


async def _listed() -> None:
    async with Client("127.0.0.1:7420", TOKEN) as cove:
        assert [each async for each in cove.workspaces.list()] == []


class Database:
    """What the StatefulSet is for, without its image, which is not ours."""

    def __init__(self, folder: Path) -> None:
        found = sorted(
            Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[4])
        )
        self._bin, self._folder = found[-1], folder
        self._user = pwd.getpwnam("postgres")
        folder.mkdir(mode=0o700)
        os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        password = folder.with_name("password")
        password.write_text(PASSWORD)
        os.chown(password, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "-N", "-U", "cove", "-A", "scram-sha-256", f"--pwfile={password}",
                  "-D", f"{folder}/data").wait()  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._fresh = True

    def start(self) -> None:
        self._process = self._run(
            "postgres", "-D", f"{self._folder}/data", "-F", "-c", "listen_addresses=127.0.0.1",
            "-c", f"unix_socket_directories={self._folder}",
        )  # fmt: skip
        until = time.monotonic() + 60
        ready = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1"]
        while subprocess.run(ready, check=False).returncode:
            assert time.monotonic() < until
            time.sleep(0.05)
        if self._fresh:  # As the entry point of the image does.
            env = {"PGPASSWORD": PASSWORD}
            argv = [str(self._bin / "createdb"), "-h", "127.0.0.1", "-U", "cove", "cove"]
            subprocess.run(argv, env=env, check=True)
            self._fresh = False

    def end(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)

    def _run(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [str(self._bin / program), *arguments],
            user=self._user.pw_uid,
            group=self._user.pw_gid,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def _secrets(way: str, folder: Path) -> dict[tuple[str, str], dict[str, bytes]]:
    """Those that the guide makes."""
    service = {"token": b"between the services\n"}
    found = {
        ("cove", "cove-service-token"): service,
        ("cove-nodes", "cove-service-token"): service,
        ("cove", "cove-operator-token"): {"token": f"{TOKEN}\n".encode()},
        ("cove", "cove-database"): {"password": PASSWORD.encode()},
    }
    if way == MTLS:
        made = folder / "certificates"
        subprocess.run([FOLDER / MTLS / "certificates", made], check=True)
        for name in ("registry", "gateway", *SERVICES):
            space = "cove-nodes" if name in SERVICES else "cove"
            files = {each.name: each.read_bytes() for each in (made / name).iterdir()}
            found[space, f"cove-{name}-tls"] = files
    return found


def _up() -> None:
    """The loopback of a new network is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        told = fcntl.ioctl(asked, _SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags: Any = struct.unpack_from("16sh", told)[1]
        fcntl.ioctl(asked, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def say(text: str) -> None:
    sys.stdout.write(f"-- {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
