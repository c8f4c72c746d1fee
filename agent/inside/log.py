"""Writes the output log and the result of one execution."""

import os
import time

from agent import LOG_VERSION, formats


class Log:
    """Appends records. What does not fit on a full disk is counted, and noted as a gap later."""

    def __init__(self, descriptor: int, result: int) -> None:
        self._descriptor = descriptor
        self._result = result
        self._end = 0
        self._missing = 0
        self.offset = 0
        """Bytes of output so far, those dropped counted."""
        self.dropped = 0
        self.limit = 0
        """Bytes of output that are recorded at most; 0 is all."""
        self.exceeded = False
        """There was more."""

    def start(self, text: bytes) -> None:
        """The first record. Raises OSError when it cannot be written."""
        if not self._append(formats.KIND_START, 0, text):
            raise OSError(28, "no space left for the log")

    def undo(self) -> None:
        """Make the log empty again: nothing was started."""
        os.ftruncate(self._descriptor, 0)
        self._end = 0

    def chunk(self, stream: int, data: bytes) -> None:
        """Output as it came, at most MAX_RECORD bytes."""
        if self.limit and self.offset + self._missing + len(data) > self.limit:
            self.exceeded = True
            data = data[: max(0, self.limit - self.offset - self._missing)]
            if not data:
                return
        if (self._missing and not self._gap()) or not self._append(
            formats.KIND_CHUNK, stream, data
        ):
            self._missing += len(data)
            self.dropped += len(data)
            return
        self.offset += len(data)

    def preview(self, stream: int, data: bytes) -> None:
        """What is seen live, and comes again as chunks. On a full disk it is left out."""
        self._append(formats.KIND_PREVIEW, stream, data)

    def finish(self, body: tuple[int, ...], text: bytes) -> None:
        """Write the result and then the last record.

        Not synced: that would hold up every other command; who reports it syncs it before.
        """
        data = formats.result(LOG_VERSION, (*body, self.offset + self._missing, self.dropped), text)
        try:
            os.pwrite(self._result, data, 0)
        except OSError:  # A disk that fails must not take down what else runs here.
            return
        if not self._missing or self._gap():
            self._append(formats.KIND_EXIT, 0, data)

    def note_input(self, taken: int, *, closed: bool) -> None:
        """Say how far the input came; before `finish`."""
        note = formats.input_note(taken, closed=closed)
        try:
            os.pwrite(self._result, note, formats.RESULT_SIZE - len(note))
        except OSError:  # As of the result.
            return

    def close(self) -> None:
        """Once: later the numbers are somebody else's."""
        descriptors = self._descriptor, self._result
        self._descriptor = self._result = -1
        for each in descriptors:
            if each >= 0:
                os.close(each)

    def _gap(self) -> bool:
        if not self._append(formats.KIND_GAP, 0, formats.GAP.pack(self._missing)):
            return False
        self.offset += self._missing
        self._missing = 0
        return True

    def _append(self, kind: int, stream: int, payload: bytes) -> bool:
        header = formats.record(kind, stream, time.time_ns(), self.offset, len(payload))
        try:
            written = os.writev(self._descriptor, (header, payload))
        except OSError:
            written = 0
        if written == len(header) + len(payload):
            self._end += written
            return True
        try:
            os.ftruncate(self._descriptor, self._end)
        except OSError:  # The reader finds a torn record.
            return False
        return False
