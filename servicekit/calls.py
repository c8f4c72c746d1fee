"""The call that is being worked on, known to everything below its handler.

It is kept in a context variable: each RPC runs in a task, and each task has
variables of its own, so nothing has to be handed down or cleaned up.
"""

import hashlib
import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from cove.options.v1.options_pb2 import Role
from servicekit.errors import InvalidArgument
from servicekit.identity import Identity
from servicekit.quota import NONE, Limits
from servicekit.spans import Recorder

CORRELATION_KEY: Final = "x-request-id"
TRACE_KEY: Final = "traceparent"
FENCING_KEY: Final = "cove-fencing-token"
"""`<uid>/<token>`, from a service of the suite; see servicekit/fencing.py."""
ENTRY_KEY: Final = "cove-audit-entry-bin"
"""An entry of the audit log, which who keeps the log keeps with what the call writes."""

_CORRELATION: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_TRACE: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_FENCE: Final = re.compile(r"([a-z2-7]{16})/([1-9][0-9]{0,18})")
_LARGEST: Final = 2**63 - 1
_NOBODY: Final = Identity("", "", Role.ROLE_UNSPECIFIED)
_ids: Final = random.Random()  # noqa: S311 - ids are to be unlike others, not to be unguessable.


class Fence(NamedTuple):
    """The lease that a call acts under: `token` is of the claim on the environment `uid`."""

    uid: str
    token: int


@dataclass(slots=True, kw_only=True)
class Call:
    """One call, or the work that outlives it.

    Filled in while the call is admitted, and not changed once its handler runs: what is
    learned later makes another one the current.
    """

    method: str = ""
    """Path of the RPC, for example `/cove.git.v1.GitService/GetDiff`."""

    correlation_id: str = ""
    traceparent: str = ""
    """Of the span that is worked on, as W3C writes it."""

    traced: bool = False
    """Whether the caller, or the sampling of a service, gave the trace: then it is passed on."""

    recorder: Recorder | None = None
    """Takes the spans of a trace that is sampled."""

    parent: str = ""
    """The span of the caller, where this call has one of its own."""

    identity: Identity = _NOBODY
    fence: Fence | None = None

    acting_for: str = ""
    """The tenant that the caller of HTTP's side names, as an operator may."""

    source: str = ""
    """From where it came, as gRPC names peers: `ipv4:192.0.2.1:4711`, `unix:`."""

    uid: str = ""
    """Of the environment that it is about, once that is known."""

    node: str = ""
    """On which that is; where there is only one it may be left out."""
    entry: bytes = b""
    """Of the audit log, about this call: kept in the same commit as what it writes."""

    reads: bool = False
    """Whether its RPC changes nothing."""

    limits: Limits = NONE
    """Of the tenant; where they are known."""

    deadline: float | None = None
    """In `time.monotonic()` seconds; None: no limit."""

    def remaining(self) -> float | None:
        """Seconds until the deadline, not below 0; None: no limit."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


_current: Final[ContextVar[Call]] = ContextVar("call", default=Call())  # noqa: B039 - never changed.


def current() -> Call:
    """The call this code works for; an empty one outside of any."""
    return _current.get()


def begin(call: Call) -> None:
    """Make `call` the current one until the task ends."""
    _current.set(call)


def limited(limits: Limits) -> None:
    """Make these the limits of the tenant, for what the current call asks of tools from now on."""
    _current.set(replace(_current.get(), limits=limits))


def about(uid: str, node: str = "") -> None:
    """The current call is about this environment, on this node."""
    _current.set(replace(_current.get(), uid=uid, node=node))


def spanning(traceparent: str) -> None:
    """The current call is in this span from now on."""
    _current.set(replace(_current.get(), traceparent=traceparent))


@contextmanager
def detached(
    *,
    identity: Identity | None = None,
    correlation_id: str | None = None,
    fence: Fence | None = None,
    node: str | None = None,
    entry: bytes | None = None,
) -> Iterator[Call]:
    """Inside, the current call has no deadline: for work that outlives it.

    Tasks made inside keep that. What is not given stays as it is; outside of any
    call a new correlation id is made.
    """
    now = current()
    correlation_id = correlation_id or now.correlation_id or new_correlation_id()
    call = replace(
        now,
        deadline=None,
        reads=False,
        identity=identity or now.identity,
        fence=fence or now.fence,
        node=now.node if node is None else node,
        entry=now.entry if entry is None else entry,
        correlation_id=correlation_id,
        traceparent=now.traceparent or untraced(correlation_id),
    )
    token = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(token)


def from_metadata(
    method: str, metadata: Mapping[str, str], recorder: Recorder | None = None
) -> Call:
    """The call that these headers begin. Ids that are missing or malformed are made.

    With a `recorder` it may be a span of its own.
    """
    correlation_id = metadata.get(CORRELATION_KEY, "")
    if not correlation_id or not _CORRELATION.fullmatch(correlation_id):
        correlation_id = new_correlation_id()
    given = metadata.get(TRACE_KEY, "")
    if given and not _TRACE.fullmatch(given):
        given = ""
    call = Call(
        method=method,
        correlation_id=correlation_id,
        traceparent=given or untraced(correlation_id),
        traced=bool(given),
    )
    if recorder is not None:
        call.traceparent, call.parent, sampled = recorder.begin(call.traceparent, given=call.traced)
        call.traced = True
        call.recorder = recorder if sampled else None
    return call


def fence_of(metadata: Mapping[str, str]) -> Fence | None:
    """The lease that these headers tell of. Raises `InvalidArgument`."""
    text = metadata.get(FENCING_KEY, "")
    if not text:
        return None
    found = _FENCE.fullmatch(text)
    if found is None or int(found[2]) > _LARGEST:
        raise InvalidArgument(FENCING_KEY, "must be an environment's uid, a slash and its token")
    return Fence(found[1], int(found[2]))


def entry_of(metadata: Mapping[str, Any]) -> bytes:
    """The entry of the audit log that these headers tell of; empty: none."""
    entry: bytes = metadata.get(ENTRY_KEY, b"")
    return entry


def new_correlation_id() -> str:
    return f"{_ids.getrandbits(128):032x}"


def new_span_id() -> str:
    """16 hexadecimal digits, not all 0, made without asking the kernel: while it is asked, other
    threads take the interpreter, and to get it back costs more than all else of a call."""
    return f"{_ids.getrandbits(64) or 1:016x}"


def untraced(correlation_id: str) -> str:
    """For a call that came without: each service makes the same trace of the correlation id, so
    that the logs of all of them are tied together, and nobody samples it yet."""
    trace = hashlib.blake2s(correlation_id.encode(), digest_size=16).hexdigest()
    return f"00-{trace}-{new_span_id()}-00"
