"""Asks an agent, and checks what it answered."""

import os
from collections.abc import Sequence
from typing import Final

from agent import frames
from agent.channel import Channel, PeerGone, Reply
from agent.messages import AgentError, ErrorCode

TIMEOUT: Final = 10.0
"""Seconds the agent has for what it does at once."""


class Asking:
    """What all requests to an agent stand on."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def _ask(
        self,
        kind: int,
        payload: bytes,
        timeout: float = TIMEOUT,
        descriptors: Sequence[int] = (),
        wanted: int = 0,
    ) -> Reply:
        reply = await self._channel.request(kind, payload, timeout, descriptors)
        if not reply.ok or len(reply.descriptors) != wanted:
            for descriptor in reply.descriptors:
                os.close(descriptor)
            raise _failure(reply)
        return reply


def numbers(reply: Reply, *counts: int) -> list[int]:
    """As many as one of `counts`."""
    try:
        found = [int(field) for field in frames.unpack(reply.payload)]
    except ValueError as error:
        raise PeerGone("the agent answers nonsense") from error
    if len(found) not in counts:
        raise PeerGone("the agent answers nonsense")
    return found


def _failure(reply: Reply) -> Exception:
    try:
        code, errno, message = frames.unpack(reply.payload)
        return AgentError(ErrorCode(code.decode()), int(errno), message.decode())
    except ValueError:
        return PeerGone("the agent answers nonsense")
