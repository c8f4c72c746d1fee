"""Answers provider on the launcher's socket; one thread, one loop."""

import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from agent import frames, protocol
from agent.inside.connection import EXHAUSTED, REST, Connection
from agent.launcher.sandboxes import Sandboxes
from agent.protocol import Facts, SandboxSpec

_MAX_CLIENTS: Final = 64
_LONGEST_FREEZE: Final = 3600
_UID: Final = frozenset("abcdefghijklmnopqrstuvwxyz234567")


class Server:
    """The loop. Ends on SIGTERM and SIGINT, or on request."""

    def __init__(
        self, path: Path, sandboxes: Sandboxes, facts: Facts, *, stop_sandboxes: bool
    ) -> None:
        self._path = path
        self._sandboxes = sandboxes
        self._facts = facts
        self._stop_sandboxes = stop_sandboxes
        self._stopping = False
        self._told = False
        """By a signal to stop."""
        self._accept_at = 0.0
        """Before, nobody can be accepted."""
        self._clients: dict[int, Connection] = {}
        self._verbs: dict[str, Callable[[Connection, int, dict[str, Any]], None]] = {
            "facts": self._tell_facts,
            "start": self._start,
            "inspect": self._inspect,
            "list": self._list,
            "kill": self._kill,
            "freeze": self._freeze,
            "thaw": self._thaw,
            "shutdown": self._shutdown,
        }

    def run(self) -> None:
        """Serve until told to end, and until nothing is left where that was asked."""
        woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told_to_stop)
        self._path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
            listener.bind(str(self._path))
            self._path.chmod(0o600)
            listener.listen(128)
            while not self._stopping or (self._stop_sandboxes and self._sandboxes.uids()):
                self._round(listener, woken)
            self._sandboxes.thaw_all()
            for client in self._clients.values():
                client.close()
            self._path.unlink(missing_ok=True)

    def _round(self, listener: socket.socket, woken: int) -> None:
        poll = select.poll()
        for descriptor in (woken, *self._sandboxes.descriptors()):
            poll.register(descriptor, select.POLLIN)
        patience = self._sandboxes.patience()
        if (resting := self._accept_at - time.monotonic()) > 0:
            patience = resting if patience is None else min(patience, resting)
        else:
            poll.register(listener.fileno(), select.POLLIN)
        for descriptor, client in self._clients.items():
            poll.register(descriptor, select.POLLIN | (client.sending and select.POLLOUT))
        for descriptor, event in poll.poll(None if patience is None else patience * 1000):
            if descriptor == listener.fileno():
                self._accept(listener)
            elif descriptor == woken:
                os.read(woken, 512)
            elif descriptor in self._clients:
                self._serve(self._clients[descriptor], event)
        if self._told:
            self._told = False
            self._stop(sandboxes=self._stop_sandboxes)
        self._sandboxes.tick()
        self._clients = {fd: client for fd, client in self._clients.items() if client.open}

    def _told_to_stop(self, _number: int, _frame: object) -> None:
        self._told = True  # Whatever is being done now is done first.

    def _stop(self, *, sandboxes: bool) -> None:
        self._stopping = True
        self._stop_sandboxes = sandboxes
        for uid in self._sandboxes.uids() if sandboxes else ():
            self._sandboxes.kill(uid, lambda: None)

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
        except OSError as error:
            if error.errno in EXHAUSTED:
                self._accept_at = time.monotonic() + REST
            return
        credentials = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, uid, _ = struct.unpack("3i", credentials)
        if uid in (0, os.getuid()) and len(self._clients) < _MAX_CLIENTS:
            self._clients[accepted.fileno()] = Connection(accepted)
        else:
            accepted.close()

    def _serve(self, client: Connection, event: int) -> None:
        if event & select.POLLOUT:
            client.flush()
        if event & ~select.POLLOUT:
            for _, number, payload, descriptors in client.receive():
                for descriptor in descriptors:
                    os.close(descriptor)
                self._answer(client, number, payload)

    def _answer(self, client: Connection, number: int, payload: bytes) -> None:
        try:
            request = protocol.decode(payload)
            self._verbs[request.pop("verb")](client, number, request)
        except (ValueError, KeyError, TypeError) as error:
            self._refuse(client, number, f"malformed request: {error}")
        except OSError as error:
            self._refuse(client, number, str(error))

    @staticmethod
    def _refuse(client: Connection, number: int, error: str) -> None:
        client.reply(frames.ERROR, number, protocol.encode({"error": error}))

    @staticmethod
    def _reply(client: Connection, number: int, **answer: Any) -> None:
        client.reply(frames.OK, number, protocol.encode(answer))

    def _tell_facts(self, client: Connection, number: int, request: dict[str, Any]) -> None:
        self._reply(client, number, **self._facts.to_json(int(request.get("spec", 1))))

    def _start(self, client: Connection, number: int, request: dict[str, Any]) -> None:
        spec = SandboxSpec.from_json(request["spec"])
        if not spec.uid or not set(spec.uid) <= _UID:
            raise ValueError("uid")
        if self._stopping:
            raise OSError("the launcher is stopping")
        if self._facts.problem:
            raise OSError(self._facts.problem)

        def answer(error: str) -> None:
            if error:
                self._refuse(client, number, error)
            else:
                self._inspect(client, number, {"uid": spec.uid})

        self._sandboxes.start(spec, answer)

    def _inspect(self, client: Connection, number: int, request: dict[str, Any]) -> None:
        status = self._sandboxes.inspect(request["uid"])
        self._reply(client, number, **asdict(status))

    def _list(self, client: Connection, number: int, request: dict[str, Any]) -> None:
        """The first `most` of those whose uids come `after` one; a client of an earlier version
        asks for all."""
        uids = [uid for uid in self._sandboxes.uids() if uid > request.get("after", "")]
        shown = uids[: request.get("most", len(uids))]
        found = [asdict(self._sandboxes.inspect(uid)) for uid in shown]
        self._reply(client, number, sandboxes=found, more=len(shown) < len(uids))

    def _kill(self, client: Connection, number: int, request: dict[str, Any]) -> None:
        if not self._sandboxes.kill(
            request["uid"], lambda: self._reply(client, number, found=True)
        ):
            self._reply(client, number, found=False)

    def _freeze(self, client: Connection, number: int, request: dict[str, Any]) -> None:
        def answer(found: bool, error: str) -> None:
            if error:
                self._refuse(client, number, error)
            else:
                self._reply(client, number, found=found)

        seconds = float(request["seconds"])
        if not 0 < seconds <= _LONGEST_FREEZE:
            raise ValueError("seconds")
        self._sandboxes.freeze(request["uid"], seconds, answer)

    def _thaw(self, client: Connection, number: int, request: dict[str, Any]) -> None:
        self._reply(client, number, thawed=self._sandboxes.thaw(request["uid"]))

    def _shutdown(self, client: Connection, number: int, request: dict[str, Any]) -> None:
        self._stop(sandboxes=bool(request["stop_sandboxes"]))
        self._reply(client, number)
