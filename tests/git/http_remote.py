"""A git server over HTTP on loopback: `git http-backend`, with a password."""

import base64
import gzip
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

PASSWORD = "a-very-secret-word"


@dataclass
class Server:
    """Where it is, and what it was asked."""

    port: int = 0
    requests: list[str] = field(default_factory=list)
    fetches: int = 0
    """How many packs were asked for."""
    old: bool = False
    """Whether it speaks the protocol of before version 2 only."""
    redirect: str = ""
    """Where everything is redirected to, if anywhere."""
    go_on: Event | None = None
    """What each pack waits for, if anything."""


class _Threads(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away, say since it does not trust us, is no matter."""


class _Threads6(_Threads):
    address_family = socket.AF_INET6


@contextmanager
def serving(
    root: Path, certificate: Path | None = None, address: str = "127.0.0.1"
) -> Iterator[Server]:
    """Serve the repositories in `root` to the user `ada`; by TLS with a certificate and its key."""
    state = Server()
    expected = "Basic " + base64.b64encode(f"ada:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name.
            pass

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            state.requests.append(self.path)
            if state.redirect:
                self.send_response(302)
                self.send_header("Location", f"{state.redirect}{self.path}")
                self.end_headers()
            elif self.headers.get("Authorization") != expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="x"')
                self.end_headers()
            else:
                self._backend()

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            return b"".join(parts)

        def _backend(self) -> None:
            path, _, query = self.path.partition("?")
            body = self._body()
            plain = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
            if b"command=fetch" in plain:
                state.fetches += 1
                if state.go_on:
                    state.go_on.wait(30)
            result = subprocess.run(
                ["git", "http-backend"],
                input=body,
                capture_output=True,
                check=False,
                env={
                    "PATH": os.environ["PATH"],
                    "GIT_PROJECT_ROOT": str(root),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "GIT_CONFIG_COUNT": "1",
                    "GIT_CONFIG_KEY_0": "safe.directory",
                    "GIT_CONFIG_VALUE_0": "*",
                    "REMOTE_USER": "ada",
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": "" if state.old else self.headers.get("Git-Protocol", ""),
                },
            )
            head, _, body = result.stdout.partition(b"\r\n\r\n")
            fields = [line.split(": ", 1) for line in head.decode().splitlines()]
            code = next((value.split()[0] for key, value in fields if key == "Status"), "200")
            self.send_response(int(code))
            for key, value in fields:
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    kind = _Threads6 if ":" in address else _Threads
    with kind((address, 0), Handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            # The handshake is left to the thread of the request.
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        state.port = server.server_address[1]
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
