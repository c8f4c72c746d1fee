"""Runs operations, one after the other, in a process that may be killed at any time."""

import _socket
import os
import traceback

from services.git.within import frames, spawn, wire
from services.git.within.operations import Context
from services.git.within.table import OPERATIONS
from services.git.within.wire import Payload


def serve(socket: _socket.socket) -> None:
    """Answer calls until the service closes its end."""
    incoming, context = frames.Incoming(socket), Context()
    while (frame := incoming.read()) is not None:
        data, received = frame
        returned: list[int] = []
        try:
            answer, returned = _answer(data, received, context)
            frames.send(socket, answer, returned)
        finally:
            for descriptor in {*received, *returned}:
                os.close(descriptor)


def _answer(data: bytes, received: list[int], context: Context) -> tuple[bytes, list[int]]:
    try:
        call = wire.unpack(data)
        spawn.prepare(
            {os.fsencode(path): wire.as_bytes(text) for path, text in call["constants"].items()}
        )
        answer, returned = OPERATIONS[call["name"]](call["payload"], received, context)
        packed = wire.pack({"answer": answer})
        if len(packed) > call["limit"]:
            return wire.pack({"error": "too large"}), returned
        return packed, returned
    except (MemoryError, RecursionError):
        context.cache.clear()
        return wire.pack({"error": "out of memory"}), []
    except Exception:
        return wire.pack(_failure()), []


def _failure() -> Payload:
    return {"error": "failed", "text": traceback.format_exc(limit=-8)[-4000:]}
