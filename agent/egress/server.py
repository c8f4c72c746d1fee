"""What provider says to the proxy: one JSON object each way, and descriptors."""

import os
import socket
from typing import Any, Final

from agent import PROTOCOL_VERSION, frames, protocol
from agent.clients import Clients
from agent.egress import log
from agent.egress.door import Door, Shared
from agent.egress.listener import WrongDescriptorError, available, checked
from agent.egress.policy import Policy
from agent.inside.connection import Connection

_MAX_CLIENTS: Final = 16


class Server:
    """Serves provider on `listener`, whose callers must be root's or of `user`."""

    def __init__(self, listener: socket.socket, user: int, shared: Shared) -> None:
        self._shared = shared
        self._doors: dict[str, Door] = {}
        self._clients = Clients(listener, (0, user), _MAX_CLIENTS, self._receive)

    def _receive(self, client: Connection) -> None:
        for _, number, payload, descriptors in client.receive():
            try:
                kind, answer = frames.OK, self._answer(protocol.decode(payload), descriptors)
            except (ValueError, KeyError, TypeError, OSError) as error:
                kind, answer = frames.ERROR, {"error": str(error)[:300]}
            finally:
                for each in descriptors:
                    os.close(each)
            client.reply(kind, number, protocol.encode(answer))

    def _answer(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Takes from `descriptors` what it keeps."""
        match request["verb"]:
            case "hello":
                return {"version": PROTOCOL_VERSION, "available": available()}
            case "open":
                return self._open(request, descriptors)
            case "close":
                return {"found": self._close(str(request["uid"]), "closed")}
            case "list":
                return {"uids": sorted(self._doors)}
        raise ValueError("unknown verb")

    def _open(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """A policy, the agent's pidfd and its listener. Idempotent."""
        uid, pid, policy = str(request["uid"]), int(request["pid"]), Policy.from_json(request)
        descriptor, agent = descriptors
        descriptors.remove(descriptor)
        try:
            listener = checked(descriptor)
        except WrongDescriptorError as error:
            self._close(uid, "wrong_descriptor")
            log.say("wrong_descriptor", uid=uid, error=str(error))
            raise
        descriptors.remove(agent)
        if before := self._doors.get(uid):
            if before.listening and before.pid == pid:
                os.close(agent)
            else:
                self._close(uid, "replaced")
        door = self._doors.get(uid)
        if door is None:
            door = Door(uid, self._shared, (pid, agent), lambda: self._close(uid, "sandbox_ended"))
            self._doors[uid] = door
        correlation = str(request.get("request_id", ""))
        cut = door.allow(policy, correlation)
        door.listen(listener)
        log.say("policy", uid=uid, rules=len(policy.rules), cut=cut, request_id=correlation)
        return {"cut": cut}

    def _close(self, uid: str, why: str) -> bool:
        door = self._doors.pop(uid, None)
        if door is None:
            return False
        log.say("closed", uid=uid, why=why, cut=door.connections)
        door.close()
        return True
