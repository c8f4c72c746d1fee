"""What an agent answered, checked; and what it is asked, as it wants it."""

from datetime import timedelta

from agent import frames
from agent.channel import PeerGone, Reply
from agent.messages import AgentError, ErrorCode


def failure(reply: Reply) -> Exception:
    try:
        code, errno, message = frames.unpack(reply.payload)
        return AgentError(ErrorCode(code.decode()), int(errno), message.decode())
    except ValueError:
        return PeerGone("the agent answers nonsense")


def numbers(reply: Reply, count: int) -> list[int]:
    try:
        found = [int(field) for field in frames.unpack(reply.payload)]
    except ValueError as error:
        raise PeerGone("the agent answers nonsense") from error
    if len(found) != count:
        raise PeerGone("the agent answers nonsense")
    return found


def as_bytes(value: str | bytes) -> bytes:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def milliseconds(duration: timedelta | None) -> int:
    return 0 if duration is None else max(1, duration // timedelta(milliseconds=1))
