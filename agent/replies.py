"""What an agent answered, checked."""

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
