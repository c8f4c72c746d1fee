"""Speaks HTTP/2 frame by frame, to say what no client would."""

import socket
from contextlib import suppress
from typing import Final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
from hyperframe.frame import Frame, PingFrame

_BOUND: Final = 20.0


class Peer:
    """One connection to a gRPC port."""

    def __init__(self, address: str, *, checks: bool = True) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), _BOUND)
        config = h2.config.H2Configuration(
            validate_outbound_headers=checks, normalize_outbound_headers=checks
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.flush()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def raw(self, *frames: Frame | bytes) -> None:
        """Send these as they are. The other side may have hung up."""
        with suppress(OSError):
            for frame in frames:
                self.socket.sendall(frame if isinstance(frame, bytes) else frame.serialize())

    def begin(self, path: str, *more: tuple[str, str], end: bool = False) -> int:
        """The head of a call; its stream."""
        stream = self.h2.get_next_available_stream_id()
        head = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "x"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        self.h2.send_headers(stream, [*head, *more], end_stream=end)
        self.flush()
        return stream

    def ping(self) -> None:
        self.raw(PingFrame(0, opaque_data=b"12345678"))

    def events(self) -> list[h2.events.Event] | None:
        """What comes next; None when the other side has hung up."""
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            return None
        if not data:
            return None
        try:
            found = list(self.h2.receive_data(data))
        except h2.exceptions.ProtocolError:
            return []
        with suppress(OSError):
            self.flush()
        return found

    def answer(self, stream: int) -> dict[str, str]:
        """Headers and trailers of a stream, when it has ended. Fails if the connection does."""
        told: dict[str, str] = {}
        while True:
            events = self.events()
            assert events is not None, f"hung up; told {told}"
            for event in events:
                if getattr(event, "stream_id", None) != stream:
                    continue
                for name, value in getattr(event, "headers", None) or ():
                    told[name.decode()] = value.decode("latin-1")
                if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                    return told

    def goodbye(self) -> tuple[int, bytes]:
        """Code and text of the GOAWAY that comes."""
        while True:
            events = self.events()
            assert events is not None, "hung up without a GOAWAY"
            for event in events:
                if isinstance(event, h2.events.ConnectionTerminated):
                    return int(event.error_code or 0), event.additional_data or b""
