"""What a person has seen of an output before it came, so that it is not shown twice."""

from cove.cli.console import Console
from cove.executor.v1.executor_pb2 import Chunk, Preview


class Seen:
    """By stream. As long as the output is what was seen, nothing of it is new."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: dict[int, bytearray] = {}

    def preview(self, event: Preview) -> bytes:
        """What to show."""
        self._seen.setdefault(event.stream, bytearray()).extend(event.data)
        return event.data

    def chunk(self, chunk: Chunk) -> bytes:
        """What of it to show. Says so where it is not what was seen; from there on all of it is."""
        seen = self._seen.get(chunk.stream)
        if not seen:
            return chunk.data
        same = _same(chunk.data, seen)
        if same == len(seen) or same == len(chunk.data):
            del seen[:same]
        else:
            self._seen.clear()
            self._console.note("[what was seen live is not exact; from here on it is]")
        return chunk.data[same:]


def _same(one: bytes, other: bytearray) -> int:
    """How many bytes both begin with."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    return next(at for at in range(most) if one[at] != other[at])
