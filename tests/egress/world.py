"""The proxy as a process of its own, with a resolver under our control, and servers outside."""

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.client import AgentClient
from agent.egress import PORT
from agent.egress_client import EgressClient, WayOut
from tests.agent import node as nodes

HERE = "127.0.0.2"
"""Where servers listen: on the host's loopback, which the operator lends."""
LENT = ("127.0.0.0/8",)
_STAND_IN = """
import json, sys
from ipaddress import ip_address
from agent.egress.__main__ import main
path = sys.argv.pop(1)
asked = {}
async def resolve(name, port):
    rows = json.load(open(path)).get(name)
    if rows is None:
        raise OSError("no such name")
    asked[name] = asked.get(name, -1) + 1
    return [ip_address(each) for each in rows[min(asked[name], len(rows) - 1)]]
sys.exit(main(resolve))
"""


@dataclass
class Proxy:
    """One of a node. `answers` are those of the resolver: for each name, one after the other."""

    node: nodes.Node
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def path(self) -> str:
        return str(self.node.runtime / "egress")

    @property
    def log(self) -> str:
        return (self.node.folder / "proxy.log").read_text()

    def decisions(self, uid: str) -> list[tuple[str, str, str]]:
        """Decision, host and reason."""
        lines = [json.loads(line) for line in self.log.splitlines()]
        return [
            (line["decision"], line["host"], line["why"])
            for line in lines
            if line["event"] == "egress" and line["uid"] == uid
        ]

    def answer(self, answers: dict[str, list[list[str]]]) -> None:
        (self.node.folder / "answers").write_text(json.dumps(answers))
        (self.node.folder / "answers").chmod(0o644)
        self.node.folder.chmod(0o755)  # The proxy is another user.

    def start(self) -> None:
        if not (self.node.folder / "answers").exists():
            self.answer({})
        argv = [*self.node.drop(), self.node.python, "-c", _STAND_IN]
        argv += [str(self.node.folder / "answers"), "--runtime", str(self.node.runtime)]
        env = {"PYTHONPATH": self.node.path, "PATH": os.environ["PATH"]}
        with (self.node.folder / "proxy.log").open("ab") as log:
            self.process = subprocess.Popen(
                argv, env=env, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[EgressClient]:
        await nodes.until(self._answers)
        async with EgressClient.connect(self.node.runtime / "egress", self.node.uid) as client:
            yield client

    def _answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.log
        with socket.socket(socket.AF_UNIX) as peer:
            return peer.connect_ex(self.path) == 0

    def memory(self) -> int:
        """Resident bytes."""
        assert self.process
        statm = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def let(
        self,
        box: nodes.Box,
        *rules: tuple[str, Sequence[int]],
        networks: Sequence[str] = LENT,
    ) -> int:
        """Give a sandbox this way out; says how many connections were cut."""
        async with self.client() as client, box.agent() as agent:
            return await self.let_with(client, agent, box, *rules, networks=networks)

    @staticmethod
    async def let_with(
        client: EgressClient,
        agent: AgentClient,
        box: nodes.Box,
        *rules: tuple[str, Sequence[int]],
        networks: Sequence[str] = LENT,
    ) -> int:
        way = WayOut(uid=box.uid, rules=rules, networks=networks)
        listener = await agent.listen(PORT)
        try:
            return await client.open(way, agent.pid, (listener, agent.pidfd))
        finally:
            os.close(listener)


@dataclass
class Outside:
    """A server that keeps what it is sent, and answers in HTTP, or as an echo."""

    port: int = 0
    received: list[bytes] = field(default_factory=list)
    """Of each connection."""
    ended: int = 0


@asynccontextmanager
async def outside(*, echo: bool = False, host: str = HERE) -> AsyncIterator[Outside]:
    """Answers when a head is whole; with `echo` it sends back what comes."""
    found = Outside()
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(found.received)
        found.received.append(b"")
        writers.add(writer)
        try:
            while data := await reader.read(65536):
                if echo:
                    writer.write(data)
                    await writer.drain()
                    continue
                found.received[number] += data
                if _whole(found.received[number]):
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")
                    await writer.drain()
                    if b"connection: close" in found.received[number].lower():
                        break
        except ConnectionError:
            pass
        finally:
            found.ended += 1
            writers.discard(writer)
            writer.close()

    server = await asyncio.start_server(serve, host, 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for writer in list(writers):
            writer.close()


def _whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return False
    if b"transfer-encoding: chunked" in head.lower():
        return body.endswith(b"0\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return True


TALK = """
import socket, sys
def talk(data, wait=30, half=False):
    with socket.create_connection(("127.0.0.1", 3128), 30) as peer:
        peer.settimeout(wait)
        peer.sendall(data)
        if half:
            peer.shutdown(socket.SHUT_WR)
        got = b""
        try:
            while piece := peer.recv(65536):
                got += piece
        except ConnectionResetError:
            got += b"<reset>"
        return got
def status(data, **options):
    return talk(data, **options).split(b"\\r\\n")[0].decode()
"""
"""For scripts inside: what comes back of bytes that are sent to the proxy."""


async def inside(box: nodes.Box, script: str, **options: Any) -> str:
    """What a Python script in the sandbox prints. It must succeed."""
    ended = await box.run(*nodes.python(TALK + script), **options)
    assert ended.result.number == 0, ended.stderr.decode()
    return ended.stdout.decode()
