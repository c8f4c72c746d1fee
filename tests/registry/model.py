"""What the registry promises of one environment, as a model to judge histories by.

It is written from the contract and not from `rules.py`. What the server chooses (uid, etag, token,
end of a lease) is taken from its answers; after a call without an answer it is `ANY` until seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from cove.registry.v1 import registry_pb2 as pb
from tests.registry.history import Call

ANY: Final = "?"
State = pb.Environment.State
NONE: Final = int(pb.Environment.OPERATION_NONE)
CREATING: Final = int(pb.Environment.OPERATION_CREATING)
ALLOWED: Final = {
    (State.STATE_PENDING, State.STATE_READY),
    (State.STATE_PENDING, State.STATE_FAILED),
    (State.STATE_PENDING, State.STATE_DELETING),
    (State.STATE_READY, State.STATE_SUSPENDED),
    (State.STATE_READY, State.STATE_FAILED),
    (State.STATE_READY, State.STATE_DELETING),
    (State.STATE_SUSPENDED, State.STATE_READY),
    (State.STATE_SUSPENDED, State.STATE_FAILED),
    (State.STATE_SUSPENDED, State.STATE_DELETING),
    (State.STATE_FAILED, State.STATE_READY),
    (State.STATE_FAILED, State.STATE_DELETING),
    (State.STATE_DELETING, State.STATE_DELETED),
    (State.STATE_DELETING, State.STATE_FAILED),
    (State.STATE_DELETED, State.STATE_READY),
    (State.STATE_DELETED, State.STATE_DELETING),
}


@dataclass(frozen=True, slots=True)
class Env:
    """One environment. Any field that the server chooses may be `ANY`."""

    state: int
    value: str
    """A label."""
    operation: int
    holder: str
    uid: Any = ANY
    etag: Any = ANY
    token: Any = ANY
    lease_end: Any = ANY
    """Nanoseconds since 1970; 0: no lease."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. Empty conditions are none."""

    kind: str
    value: str = ""
    state: int = 0
    operation: int = 0
    holder: str = ""
    etag: str = ""
    token: int = 0
    release: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A failure, by its reason."""

    reason: str


Removed: Final = "removed"
"""The answer of a removal."""


def step(env: Env | None, call: Call) -> Sequence[Env | None]:
    """The states that may follow; none where the answer is not one of the model."""
    ask: Ask = call.asked
    if not call.answered:
        return _unanswered(env, ask)
    if isinstance(call.answer, Refused):
        return [env] if call.answer.reason in _refusals(env, call) else []
    if not _may(env, call):
        return []
    if ask.kind == "deregister":
        return [None]
    after = _apply(env, ask)
    bound = _bind(after, call.answer, env)
    return [] if bound is None else [bound]


def _unanswered(env: Env | None, ask: Ask) -> Sequence[Env | None]:
    """It happened, or was refused, which changes nothing."""
    if ask.kind == "get" or not _may(env, Call(ask, None, 0, 1 << 62)):
        return []
    return [None if ask.kind == "deregister" else _apply(env, ask)]


def _may(env: Env | None, call: Call) -> bool:
    """Whether it may succeed."""
    ask = call.asked
    if env is None:
        return bool(ask.kind == "register")
    if ask.kind == "register" or not _same(ask.etag, env.etag) or not _same(ask.token, env.token):
        return False
    match ask.kind:
        case "claim":
            over = env.lease_end == ANY or env.lease_end <= call.ended
            return bool(over or env.holder == ask.holder)
        case "renew":
            return env.operation != NONE
        case "status":
            return ask.state == env.state or (env.state, ask.state) in ALLOWED
    return True


def _refusals(env: Env | None, call: Call) -> set[str]:
    """The reasons for which it may be refused."""
    ask = call.asked
    if env is None:
        return set() if ask.kind == "register" else {"ENVIRONMENT_NOT_FOUND"}
    if ask.kind == "register":
        return {"ENVIRONMENT_EXISTS"}
    found = set()
    if ask.token and ask.token != env.token:
        found.add("LEASE_LOST")
    if ask.etag and ask.etag != env.etag:
        found.add("ETAG_MISMATCH")
    if ask.kind == "renew" and env.operation == NONE:
        found.add("LEASE_LOST")
    if ask.kind == "status" and env.state != ask.state and (env.state, ask.state) not in ALLOWED:
        found.add("TRANSITION_FORBIDDEN")
    running = env.lease_end == ANY or env.lease_end > call.began
    if ask.kind == "claim" and running and env.holder != ask.holder:
        found.add("OPERATION_IN_PROGRESS")
    return found


def _apply(env: Env | None, ask: Ask) -> Env:
    if ask.kind == "register":
        return Env(State.STATE_PENDING, ask.value, CREATING, ask.holder)
    assert env
    match ask.kind:
        case "get":
            return env
        case "update":
            return replace(env, value=ask.value, etag=ANY)
        case "claim":
            taken = replace(env, operation=ask.operation, holder=ask.holder)
            return replace(taken, etag=ANY, token=ANY, lease_end=ANY)
        case "renew":
            return replace(env, etag=ANY, lease_end=ANY)
        case "release":
            return _changed(env, operation=NONE, holder="", lease_end=0)
        case "status":
            ended = {"operation": NONE, "holder": "", "lease_end": 0} if ask.release else {}
            return _changed(env, state=ask.state, **ended)
    raise AssertionError(ask.kind)


def _changed(env: Env, **changes: Any) -> Env:
    """What would change nothing is no write."""
    after = replace(env, **changes)
    return env if after == env else replace(after, etag=ANY)


def _bind(after: Env, answer: Env, before: Env | None) -> Env | None:
    """The state with what the answer shows; None when it shows something else."""
    for field in fields(Env):
        known, told = getattr(after, field.name), getattr(answer, field.name)
        if known != told and known != ANY:
            return None
    if before and after.etag == ANY and before.etag not in (ANY, answer.etag):
        return answer
    return answer if before is None or after.etag != ANY or before.etag == ANY else None


def _same(wanted: Any, found: Any) -> bool:
    return not wanted or found in (ANY, wanted)


def seen(environment: pb.Environment) -> Env:
    """What an answer shows."""
    return Env(
        state=environment.state,
        value=environment.labels.get("v", ""),
        operation=environment.operation,
        holder=environment.operation_holder,
        uid=environment.uid,
        etag=environment.etag,
        token=environment.fencing_token,
        lease_end=environment.lease_expire_time.ToNanoseconds(),
    )
