"""Ports that stay the suite's own while it runs."""

import contextlib
import socket
from collections.abc import Iterator

from cove_server.errors import CannotStart


@contextlib.contextmanager
def reserved(address: str) -> Iterator[str]:
    """Yield `address` with a real port, which nobody else can take while the block runs.

    The port is bound here and never listened on: with SO_REUSEADDR, which gRPC and
    asyncio set too, a service can then listen on it, and do so again after it died.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise CannotStart(f"{address} is not an address", "Write it as host:port.", 2)
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        family, kind, protocol, _, where = found[0]
        holder = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CannotStart(f"{address}: {error.strerror}", status=2) from None
    with holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind(where)
        except OSError as error:
            raise CannotStart(
                f"cannot listen on {address}: {error.strerror}",
                "End what listens there, or choose another with --grpc and --http.",
            ) from None
        yield f"{host}:{holder.getsockname()[1]}"
