"""The table of states: which state may follow which."""

from collections.abc import Mapping
from typing import Final

from cove.registry.v1.registry_pb2 import Environment
from services.registry.errors import TransitionForbidden

State = Environment.State

TRANSITIONS: Final[Mapping[State.ValueType, frozenset[State.ValueType]]] = {
    State.STATE_PENDING: frozenset({State.STATE_READY, State.STATE_FAILED, State.STATE_DELETING}),
    State.STATE_READY: frozenset({State.STATE_SUSPENDED, State.STATE_FAILED, State.STATE_DELETING}),
    State.STATE_SUSPENDED: frozenset({State.STATE_READY, State.STATE_FAILED, State.STATE_DELETING}),
    # READY again when the node it was lost with is back.
    State.STATE_FAILED: frozenset({State.STATE_READY, State.STATE_DELETING}),
    State.STATE_DELETING: frozenset({State.STATE_DELETED, State.STATE_FAILED}),
    # READY again is undelete, DELETING again is purge.
    State.STATE_DELETED: frozenset({State.STATE_READY, State.STATE_DELETING}),
}


def check(before: State.ValueType, after: State.ValueType) -> None:
    """Raises `TransitionForbidden`. Staying in a state is no transition."""
    if after != before and after not in TRANSITIONS[before]:
        raise TransitionForbidden(State.Name(before), State.Name(after))
