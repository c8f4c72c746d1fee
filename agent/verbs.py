"""Asks the launcher, or the proxy: one JSON object each way."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from agent import frames, protocol
from agent.channel import Channel, PeerGone


async def ask(
    channel: Channel,
    refused: Callable[[str], Exception],
    verb: str,
    timeout: float,
    descriptors: Sequence[int] = (),
    **arguments: Any,
) -> dict[str, Any]:
    """Its answer. Raises PeerGone, and what `refused` makes of what it says."""
    payload = protocol.encode({"verb": verb, **arguments})
    reply = await channel.request(frames.LAUNCHER, payload, timeout, descriptors)
    for descriptor in reply.descriptors:
        os.close(descriptor)
    try:
        answer = protocol.decode(reply.payload)
    except ValueError as error:
        raise PeerGone("it answers nonsense") from error
    if not reply.ok:
        raise refused(str(answer.get("error", "unknown")))
    return answer
