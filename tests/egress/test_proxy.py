"""What gets out of a sandbox, and what does not."""

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from tests.agent import node as nodes
from tests.egress.world import HERE, TALK, Proxy, inside, outside

PROXIED = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:3128")


async def test_programs_reach_what_is_listed_and_nothing_else(box: nodes.Box, proxy: Proxy) -> None:
    async with outside() as one, outside() as two:
        await proxy.let(box, (HERE, [one.port]))
        listed, other = (f"http://{HERE}:{each.port}/x?secret=1" for each in (one, two))
        for options in ([], ["-p"]):  # Plain, and by a tunnel.
            ended = await box.run("curl", "-sS", *options, listed, env=PROXIED)
            assert ended.stdout == b"hello\n", ended.stderr
        ended = await box.run("curl", "-sS", "-i", other, env=PROXIED)
        assert b"HTTP/1.1 403 " in ended.stdout
        assert b"port_not_listed" in ended.stdout
        ended = await box.run("curl", "-sS", "--noproxy", "*", listed)
        assert ended.result.number == 7, ended.stderr
        got = await inside(
            box,
            f"import urllib.request as u; print(u.urlopen('{listed}').read())\n"
            "try: print(socket.getaddrinfo('example.org', 1))\n"
            "except OSError as error: print('no name')",
            env=PROXIED,
        )
        assert got == "b'hello\\n'\nno name\n"
        assert len(one.received) == 3
        assert two.received == []
    # Nothing of a request but host and port is logged.
    assert proxy.decisions(box.uid) == [
        ("allowed", HERE, "named"),
        ("allowed", HERE, "named"),
        ("refused", HERE, "port_not_listed"),
        ("allowed", HERE, "named"),
    ]
    assert "secret" not in proxy.log


async def test_git_clones_through_it(box: nodes.Box, proxy: Proxy, node: nodes.Node) -> None:
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(Repository(node))
        await proxy.let(box, (HERE, [served]))
        url = f"http://{HERE}:{served}/r.git"
        env = PROXIED | {"GIT_CONFIG_NOSYSTEM": "1"}
        ended = await box.run("git", "clone", "-q", url, "/tmp/cloned", env=env)
        assert ended.result.number == 0, ended.stderr
        ended = await box.run("cat", "/tmp/cloned/f")
        assert ended.stdout == b"content\n"


class Repository:
    """A repository behind a plain web server."""

    def __init__(self, node: nodes.Node) -> None:
        self._folder = node.folder / "web"

    async def __aenter__(self) -> int:
        if not self._folder.exists():
            work = self._folder / "w"
            subprocess.run(["git", "init", "-q", "-b", "main", work], check=True)
            (work / "f").write_text("content\n")
            as_somebody = ["-c", "user.name=n", "-c", "user.email=e"]
            for command in (["add", "f"], [*as_somebody, "commit", "-q", "-m", "m"]):
                subprocess.run(["git", "-C", work, *command], check=True)
            bare = self._folder / "r.git"
            subprocess.run(["git", "clone", "-q", "--bare", work, bare], check=True)
            subprocess.run(["git", "-C", bare, "update-server-info"], check=True)
        script = (
            "import http.server as h, functools, sys\n"
            "make = functools.partial(h.SimpleHTTPRequestHandler, directory=sys.argv[1])\n"
            f"server = h.ThreadingHTTPServer(('{HERE}', 0), make)\n"
            "print(server.server_address[1], flush=True)\nserver.serve_forever()"
        )
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(self._folder), stdout=-1, stderr=-3
        )
        assert self._process.stdout
        return int(await self._process.stdout.readline())

    async def __aexit__(self, *_: object) -> None:
        self._process.kill()
        await self._process.wait()


NOT_THAT_HOST = {
    "CONNECT 127.0.0.2:{denied} HTTP/1.1": 403,
    "CONNECT 2130706434:{port} HTTP/1.1": 400,
    "CONNECT 0x7f.0.0.2:{port} HTTP/1.1": 400,
    "CONNECT 0177.0.0.2:{port} HTTP/1.1": 400,
    "CONNECT 127.2:{port} HTTP/1.1": 400,
    "CONNECT 127.0.0.1:{port} HTTP/1.1": 403,
    "CONNECT 127.0.0.2%00.example.org:{port} HTTP/1.1": 400,
    "CONNECT [::ffff:127.0.0.2]:{port} HTTP/1.1": 403,
    "CONNECT localhost:{port} HTTP/1.1": 403,
    "CONNECT 169.254.169.254:80 HTTP/1.1": 403,
    "GET http://127.0.0.2:{port}/ HTTP/1.1\r\nHost: other.example": 400,
    "GET http://other.example:{port}/ HTTP/1.1\r\nHost: 127.0.0.2:{port}": 400,
    "CONNECT 127.0.0.2:{port} HTTP/1.1\r\nHost: other.example:{port}": 400,
}


async def test_refuses_what_is_not_that_host(box: nodes.Box, proxy: Proxy) -> None:
    async with outside() as server, outside() as denied:
        proxy.answer({"localhost": [["127.0.0.1"]]})
        await proxy.let(box, (HERE, [server.port]), ("*", [80, server.port]))
        asked = [
            f"{line}\r\n\r\n".format(port=server.port, denied=denied.port).encode()
            for line in NOT_THAT_HOST
        ]
        got = await inside(box, f"for each in {asked!r}: print(status(each).split()[1])")
        said = dict(zip(NOT_THAT_HOST, map(int, got.split()), strict=True))
        assert said == NOT_THAT_HOST
        assert server.received == denied.received == []


async def test_a_second_request_on_a_connection_goes_nowhere(box: nodes.Box, proxy: Proxy) -> None:
    async with outside() as server:
        await proxy.let(box, (HERE, [server.port]))
        url = f"http://{HERE}:{server.port}"
        second = f"GET {url}/admin HTTP/1.1\r\nHost: {HERE}:{server.port}\r\n\r\n"
        script = ""
        for body in (
            "Content-Length: 5\r\n\r\nhello",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "\r\n",
        ):
            first = f"POST {url}/ HTTP/1.1\r\nHost: {HERE}:{server.port}\r\n{body}"
            script += f"print(b'hello' in talk({(first + second).encode()!r}))\n"
        assert await inside(box, script) == "True\n" * 3
        assert len(server.received) <= 3
        assert not any(b"admin" in each for each in server.received)
    assert ("cut", HERE, "second_request") in proxy.decisions(box.uid)


async def test_a_name_that_turns_private_is_refused(box: nodes.Box, proxy: Proxy) -> None:
    """It is resolved once for a connection, and the address that was looked at is the one."""
    public = "203.0.113.9"  # Nobody has it, so that a connect to it fails.
    async with outside() as server:
        proxy.answer(
            {
                "rebind.example": [[HERE]],
                "both.example": [["10.0.0.1", HERE]],
                "mapped.example": [[f"::ffff:{HERE}"], ["64:ff9b::7f00:2"], ["2002:7f00:2::"]],
                "metadata.example": [["169.254.169.254"]],
                "none.example": [[]],
                "fine.example": [[HERE]],
                "later.example": [[public], [HERE]],
            }
        )
        names = ("rebind", "both", "mapped", "metadata", "none", "missing", "later")
        rules = [(f"{name}.example", [server.port]) for name in (*names, "fine")]
        await proxy.let(box, *rules, networks=())
        asked = (
            *("rebind", "both", "mapped", "mapped", "mapped", "metadata", "none", "missing"),
            *("later", "later"),
        )
        script = "".join(
            f"print(status(b'CONNECT {name}.example:{server.port} HTTP/1.1\\r\\n\\r\\n')[9:12])\n"
            for name in asked
        )
        got = (await inside(box, script)).split()
        assert got == ["403"] * 7 + ["502"] + ["403"] * 2
        assert server.received == []
        # What the operator lends is for those that are named, not for `*`.
        await proxy.let(box, ("*", [server.port]))
        ask = f"print(status(b'CONNECT fine.example:{server.port} HTTP/1.1\\r\\n\\r\\n'))"
        assert "403" in await inside(box, ask)
        await proxy.let(box, ("fine.example", [server.port]), ("*", [443]))
        ask = f"print(talk(b'GET http://FINE.example.:{server.port}/ HTTP/1.0\\r\\n\\r\\n'))"
        assert "hello" in await inside(box, ask)
        assert f"Host: fine.example:{server.port}".encode() in server.received[0]


async def test_a_change_is_in_force_at_once(box: nodes.Box, proxy: Proxy) -> None:
    async with outside(echo=True) as one, outside(echo=True) as two, box.agent() as agent:
        await proxy.let(box, (HERE, [one.port, two.port]))
        script = f"""
def tunnel(port):
    peer = socket.create_connection(("127.0.0.1", 3128))
    peer.sendall(b"CONNECT {HERE}:%d HTTP/1.1\\r\\n\\r\\n" % port)
    while not peer.recv(4096).endswith(b"\\r\\n\\r\\n"): pass
    return peer
one, two = tunnel({one.port}), tunnel({two.port})
print("open", flush=True)
print(two.recv(1) == b"")
one.sendall(b"still")
print(one.recv(5) == b"still")
print(status(b"CONNECT {HERE}:{two.port} HTTP/1.1\\r\\n\\r\\n"))
"""
        sinks = box.sinks("tunnels")
        await agent.start("tunnels", nodes.command(*nodes.python(TALK + script)), sinks)
        await nodes.until(lambda: nodes.output(sinks.log)[0].startswith(b"open"))
        assert await proxy.let(box, (HERE, [one.port])) == 1
        ended = await nodes.ended(sinks)
        nodes.close(sinks)
        assert ended.stdout == b"open\nTrue\nTrue\nHTTP/1.1 403 Forbidden\n"
        async with proxy.client() as client:
            assert await client.close(box.uid)
            assert not await client.close(box.uid)
        await agent.close_listener()
        got = await inside(box, "print(socket.socket().connect_ex(('127.0.0.1', 3128)) != 0)")
        assert got == "True\n"
        await proxy.let(box, (HERE, [one.port]))
        assert "200" in await inside(
            box, f"print(status(b'CONNECT {HERE}:{one.port} HTTP/1.1\\r\\n\\r\\n', half=True))"
        )


async def test_connects_wait_while_the_proxy_is_away(node: nodes.Node, proxy: Proxy) -> None:
    async with outside() as server, node.sandbox() as box, box.agent() as agent:
        await proxy.let(box, (HERE, [server.port]))
        proxy.kill()
        script = f"print(talk(b'GET http://{HERE}:{server.port}/ HTTP/1.0\\r\\n\\r\\n'))"
        sinks = box.sinks("waits")
        await agent.start("waits", nodes.command(*nodes.python(TALK + script)), sinks)
        waiting = asyncio.create_task(nodes.ended(sinks))
        proxy.start()
        await proxy.let(box, (HERE, [server.port]))
        assert b"hello" in (await waiting).stdout
        nodes.close(sinks)


async def test_nobody_stalls_or_grows_it(node: nodes.Node, proxy: Proxy, box: nodes.Box) -> None:
    """Slow heads, floods of connections, readers that do not read; a neighbour is served."""
    async with outside() as server, outside(echo=True) as echo, node.sandbox() as bad:
        await proxy.let(box, (HERE, [server.port]))
        await proxy.let(bad, (HERE, [echo.port]))
        script = f"""
import os, select, time
opened = []
for number in range(150):
    peer = socket.socket()
    peer.setblocking(False)
    peer.connect_ex(("127.0.0.1", 3128))
    opened.append(peer)
tunnels = opened[:40]
for peer in opened:
    try:
        end = b"\\r\\n" if peer in tunnels else b"X: "
        peer.send(b"CONNECT {HERE}:{echo.port} HTTP/1.1\\r\\n" + end)
    except OSError: pass
print("begun", flush=True)
end = time.monotonic() + 60
piece = b"x" * 65536
while time.monotonic() < end:
    _, ready, _ = select.select([], opened, [], 0.1)
    for peer in ready:
        try: peer.send(piece if peer in tunnels else b"x")
        except OSError: opened.remove(peer) if peer not in tunnels else None
"""
        async with bad.agent() as agent:
            sinks = bad.sinks("flood")
            before = proxy.memory()
            await agent.start("flood", nodes.command(*nodes.python(TALK + script)), sinks)
            await nodes.until(lambda: nodes.output(sinks.log)[0])
            get = f"talk(b'GET http://{HERE}:{server.port}/ HTTP/1.0\\r\\n\\r\\n')"
            for _ in range(5):
                assert "hello" in await inside(box, f"print({get})")
            assert len(echo.received) <= 64
            assert proxy.memory() - before < 24 << 20
            await agent.signal("flood", 9)
            await nodes.ended(sinks)
            nodes.close(sinks)
        await nodes.until(lambda: echo.ended == len(echo.received))


async def test_a_long_head_is_refused(box: nodes.Box, proxy: Proxy) -> None:
    async with outside() as server:
        await proxy.let(box, (HERE, [server.port]))
        got = await inside(
            box,
            f"head = b'GET http://{HERE}:{server.port}/ HTTP/1.1\\r\\n' + b'X: y\\r\\n' * 9999\n"
            "print(status(head))",
        )
        assert "400" in got
        assert server.received == []


async def test_runs_without_rights(proxy: Proxy) -> None:
    assert proxy.process
    async with proxy.client():
        status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"
    user = int(fields["Uid"].split()[0])
    assert user == (60901 if proxy.node.mode == "root" else proxy.node.uid)
