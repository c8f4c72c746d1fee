"""What each write does to an environment: pure functions of what is stored.

Each method is one RPC. It takes the request, what is stored and the revision that its
write will have, and returns what to keep and what to answer. They run in the store's
writer thread, one after the other, so that what they read is what they replace.
"""

import base64
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from cove.registry.v1 import registry_pb2 as pb
from servicekit.errors import InvalidArgument
from services.registry import documents, life, states
from services.registry.errors import (
    EnvironmentExists,
    FieldImmutable,
    OperationInProgress,
)
from services.registry.store import Clock, Key, Outcome, Record

_NANOS: Final = 10**9

# Most operations end long before their lease does.
_RETRY: Final = timedelta(seconds=1)

_REGISTERED: Final = ("labels", "annotations", "spec", "keep_on_failure", "source", "node")
_UPDATABLE: Final = frozenset(
    {
        "labels",
        "annotations",
        "worktree",
        "mount",
        "handle",
        "handle_generation",
        "driver",
        "node",
        "progress",
        "failure",
        "head_commit",
        "warnings",
        "spec.network",
        "spec.ttl",
        "spec.idle_timeout",
        "last_active_time",
        "copy_node",
        "copy_commit",
    }
)


def new_uid() -> str:
    """16 characters of [a-z2-7]: 80 random bits."""
    return base64.b32encode(os.urandom(10)).decode().lower()


class Rules:
    def __init__(
        self,
        now: Clock,
        make_uid: Callable[[], str] = new_uid,
        admit: Callable[[], None] = lambda: None,
    ) -> None:
        """`admit` raises when nothing new is to be registered."""
        self._now = now
        self._make_uid = make_uid
        self._admit = admit

    def register(
        self,
        request: pb.RegisterEnvironmentRequest,
        key: Key,
        creator: str,
        current: Record | None,
        revision: int,
    ) -> Outcome:
        if current:
            raise EnvironmentExists("the id is taken", name=key.name)
        self._admit()
        now = self._now()
        message = pb.Environment(
            name=key.name,
            uid=self._make_uid(),
            tenant=key.tenant,
            creator=creator,
            state=states.State.STATE_PENDING,
            create_time=life.time(now),
            state_start_time=life.time(now),
        )
        documents.copy(_REGISTERED, request.environment, message)
        life.date(message, now)
        documents.claim(
            message,
            pb.Environment.OPERATION_CREATING,
            request.holder,
            now,
            now + request.lease.ToNanoseconds(),
            revision,
        )
        return documents.stored(pb.RegisterEnvironmentResponse(), message, now, now, revision)

    def deregister(
        self, request: pb.DeregisterEnvironmentRequest, current: Record | None, _revision: int
    ) -> Outcome:
        if current is None or request.uid not in ("", current.uid):
            if not request.allow_missing:
                raise documents.not_found(request.name)
            answer = pb.DeregisterEnvironmentResponse(existed=False)
            return Outcome(response=answer.SerializeToString())
        documents.opened(current, request.name, request.etag, request.fencing_token)
        answer = pb.DeregisterEnvironmentResponse(existed=True)
        return Outcome(response=answer.SerializeToString(), remove=True)

    def update(
        self, request: pb.UpdateEnvironmentRequest, current: Record | None, revision: int
    ) -> Outcome:
        given = request.environment
        for path in request.update_mask.paths:
            if path not in _UPDATABLE:
                raise FieldImmutable(path)
        message = documents.opened(current, given.name, given.etag, request.fencing_token)
        paths = set(request.update_mask.paths)
        given.spec.SetInParent()  # Else a path into it would leave what is stored.
        seen = message.last_active_time.ToNanoseconds()
        fell = given.handle_generation < message.handle_generation
        if "handle_generation" in paths and "node" not in paths and fell:
            raise InvalidArgument("environment.handle_generation", "lower than the stored one")
        documents.copy(paths, given, message)
        life.updated(message, paths, seen, self._now())
        return self._changed(pb.UpdateEnvironmentResponse(), message, current, revision)

    def update_status(
        self, request: pb.UpdateEnvironmentStatusRequest, current: Record | None, revision: int
    ) -> Outcome:
        message = documents.opened(current, request.name, request.etag, request.fencing_token)
        states.check(message.state, request.state)
        moved = message.state != request.state
        before = message.state
        message.state = request.state
        if moved:
            message.state_start_time.CopyFrom(life.time(self._now()))
        if moved and request.state == states.State.STATE_READY:
            message.ClearField("failure")
            message.ClearField("delete_time")
            message.ClearField("purge_time")
        life.moved(message, before, self._now())
        if request.HasField("failure"):
            message.failure.CopyFrom(request.failure)
        if request.state == states.State.STATE_DELETED and request.HasField("purge_time"):
            message.purge_time.CopyFrom(request.purge_time)
        if request.release_operation:
            documents.release(message)
        return self._changed(pb.UpdateEnvironmentStatusResponse(), message, current, revision)

    def claim(
        self, request: pb.ClaimOperationRequest, current: Record | None, revision: int
    ) -> Outcome:
        message = documents.opened(current, request.name, request.etag)
        assert current
        now = self._now()
        left = documents.lease_left(current, now)
        running = left > 0 and message.operation_holder != request.holder
        if running and not (request.preempt and message.operation != request.operation):
            raise OperationInProgress(
                "another operation is going on",
                operation=pb.Environment.Operation.Name(message.operation),
                holder=message.operation_holder,
                retry_after=min(_RETRY, timedelta(seconds=left / _NANOS)),
            )
        end = now + request.lease.ToNanoseconds()
        documents.claim(message, request.operation, request.holder, now, end, revision)
        if request.cause:
            message.cause = request.cause
        return documents.stored(pb.ClaimOperationResponse(), message, now, now, revision)

    def renew(
        self, request: pb.RenewOperationRequest, current: Record | None, revision: int
    ) -> Outcome:
        message = documents.opened(current, request.name, token=request.fencing_token)
        if message.operation == pb.Environment.OPERATION_NONE:
            raise documents.lease_lost(request.name)
        now = self._now()
        message.lease_expire_time.FromNanoseconds(now + request.lease.ToNanoseconds())
        return documents.stored(pb.RenewOperationResponse(), message, now, now, revision)

    def release(
        self, request: pb.ReleaseOperationRequest, current: Record | None, revision: int
    ) -> Outcome:
        message = documents.opened(current, request.name, token=request.fencing_token)
        documents.release(message)
        return self._changed(pb.ReleaseOperationResponse(), message, current, revision)

    def _changed(
        self, answer: Any, message: pb.Environment, current: Record | None, revision: int
    ) -> Outcome:
        """Write the message, unless it is what is stored already."""
        assert current
        if message == pb.Environment.FromString(current.document):
            answer.environment.CopyFrom(message)
            return Outcome(response=answer.SerializeToString())
        return documents.stored(answer, message, current.lease_start, self._now(), revision)
