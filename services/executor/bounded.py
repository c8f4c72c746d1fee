"""The output of one stream, up to a bound, for an answer in one piece."""

import codecs

from cove.executor.v1 import executor_pb2 as pb


class Bounded:
    """Keeps the first `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._data = bytearray()
        self.truncated = False
        """Something was left out."""

    def add(self, data: bytes) -> None:
        room = self._most - len(self._data)
        self._data += data[:room]
        self.truncated = self.truncated or len(data) > room

    def message(self) -> pb.Output:
        """Text if it is UTF-8. A character that the bound cut in two is left out of a text."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            text = decoder.decode(bytes(self._data), final=not self.truncated)
        except UnicodeDecodeError:
            return pb.Output(data=bytes(self._data), truncated=self.truncated)
        return pb.Output(text=text, truncated=self.truncated)
