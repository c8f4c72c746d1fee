"""What each write does to an environment: pure functions of what is stored.

Each method is one RPC. It takes the request, what is stored and the revision that its
write will have, and returns what to keep and what to answer. They run in the store's
writer thread, one after the other, so that what they read is what they replace.
"""

import base64
import hashlib
import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Final

from google.protobuf.field_mask_pb2 import FieldMask

from cove.registry.v1 import registry_pb2 as pb
from servicekit.errors import InvalidArgument
from services.registry import life, states
from services.registry.errors import (
    DocumentTooLarge,
    EnvironmentExists,
    EnvironmentNotFound,
    EtagMismatch,
    FieldImmutable,
    LeaseLost,
    OperationInProgress,
)
from services.registry.store import Clock, Key, Outcome, Record

_NANOS: Final = 10**9

# A clock that was set back by more than this ends the leases it gave before.
_CLOCK_SLACK: Final = 5 * _NANOS

# Most operations end long before their lease does.
_RETRY: Final = timedelta(seconds=1)

# So that a page, and a watch, never get larger than a client takes.
_MAX_DOCUMENT: Final = 1 << 20

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
        _copy(_REGISTERED, request.environment, message)
        life.date(message, now)
        _lease(
            message,
            pb.Environment.OPERATION_CREATING,
            request.holder,
            now,
            now + request.lease.ToNanoseconds(),
            revision,
        )
        return _put(pb.RegisterEnvironmentResponse(), message, now, now, revision)

    def deregister(
        self, request: pb.DeregisterEnvironmentRequest, current: Record | None, _revision: int
    ) -> Outcome:
        if current is None or request.uid not in ("", current.uid):
            if not request.allow_missing:
                raise _not_found(request.name)
            answer = pb.DeregisterEnvironmentResponse(existed=False)
            return Outcome(response=answer.SerializeToString())
        _open(current, request.name, request.etag, request.fencing_token)
        answer = pb.DeregisterEnvironmentResponse(existed=True)
        return Outcome(response=answer.SerializeToString(), remove=True)

    def update(
        self, request: pb.UpdateEnvironmentRequest, current: Record | None, revision: int
    ) -> Outcome:
        given = request.environment
        for path in request.update_mask.paths:
            if path not in _UPDATABLE:
                raise FieldImmutable(path)
        message = _open(current, given.name, given.etag, request.fencing_token)
        paths = set(request.update_mask.paths)
        given.spec.SetInParent()  # Else a path into it would leave what is stored.
        seen = message.last_active_time.ToNanoseconds()
        fell = given.handle_generation < message.handle_generation
        if "handle_generation" in paths and "node" not in paths and fell:
            raise InvalidArgument("environment.handle_generation", "lower than the stored one")
        _copy(paths, given, message)
        life.updated(message, paths, seen, self._now())
        return self._changed(pb.UpdateEnvironmentResponse(), message, current, revision)

    def update_status(
        self, request: pb.UpdateEnvironmentStatusRequest, current: Record | None, revision: int
    ) -> Outcome:
        message = _open(current, request.name, request.etag, request.fencing_token)
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
            _release(message)
        return self._changed(pb.UpdateEnvironmentStatusResponse(), message, current, revision)

    def claim(
        self, request: pb.ClaimOperationRequest, current: Record | None, revision: int
    ) -> Outcome:
        message = _open(current, request.name, request.etag)
        assert current
        now = self._now()
        left = _lease_left(current, now)
        running = left > 0 and message.operation_holder != request.holder
        if running and not (request.preempt and message.operation != request.operation):
            raise OperationInProgress(
                "another operation is going on",
                operation=pb.Environment.Operation.Name(message.operation),
                holder=message.operation_holder,
                retry_after=min(_RETRY, timedelta(seconds=left / _NANOS)),
            )
        end = now + request.lease.ToNanoseconds()
        _lease(message, request.operation, request.holder, now, end, revision)
        if request.cause:
            message.cause = request.cause
        return _put(pb.ClaimOperationResponse(), message, now, now, revision)

    def renew(
        self, request: pb.RenewOperationRequest, current: Record | None, revision: int
    ) -> Outcome:
        message = _open(current, request.name, token=request.fencing_token)
        if message.operation == pb.Environment.OPERATION_NONE:
            raise _lease_lost(request.name)
        now = self._now()
        message.lease_expire_time.FromNanoseconds(now + request.lease.ToNanoseconds())
        return _put(pb.RenewOperationResponse(), message, now, now, revision)

    def release(
        self, request: pb.ReleaseOperationRequest, current: Record | None, revision: int
    ) -> Outcome:
        message = _open(current, request.name, token=request.fencing_token)
        _release(message)
        return self._changed(pb.ReleaseOperationResponse(), message, current, revision)

    def _changed(
        self, answer: Any, message: pb.Environment, current: Record | None, revision: int
    ) -> Outcome:
        """Write the message, unless it is what is stored already."""
        assert current
        if message == pb.Environment.FromString(current.document):
            answer.environment.CopyFrom(message)
            return Outcome(response=answer.SerializeToString())
        return _put(answer, message, current.lease_start, self._now(), revision)


def digest(request: Any) -> bytes:
    """Of the content that makes two requests the same one.

    Who takes a lease, and for how long, is no part of it: a retry that reaches another
    gateway is still the same request. Its `operation_holder` tells that it was one.
    """
    content: Any = request
    if isinstance(request, pb.RegisterEnvironmentRequest | pb.ClaimOperationRequest):
        content = request.__class__()
        content.CopyFrom(request)
        content.ClearField("holder")
        content.ClearField("lease")
    elif isinstance(request, pb.UpdateEnvironmentRequest):
        content = request.__class__()
        content.CopyFrom(request)
        content.ClearField("fencing_token")
    return hashlib.sha256(content.SerializeToString(deterministic=True)).digest()


def _open(current: Record | None, name: str, etag: str = "", token: int = 0) -> pb.Environment:
    """The stored message, if the caller's conditions hold. A token of 0 is none."""
    if current is None:
        raise _not_found(name)
    message = pb.Environment.FromString(current.document)
    if token and token != message.fencing_token:
        raise _lease_lost(name)
    if etag and etag != message.etag:
        raise EtagMismatch("changed since it was read", name=name)
    return message


def _put(
    answer: Any, message: pb.Environment, lease_start: int, now: int, revision: int
) -> Outcome:
    """Store the message as this revision, and answer with it."""
    message.update_time.FromNanoseconds(now)
    message.revision = revision
    message.etag = f"{revision:x}"
    answer.environment.CopyFrom(message)
    document = message.SerializeToString()
    if len(document) > _MAX_DOCUMENT:
        raise DocumentTooLarge("the environment would be too large", limit=str(_MAX_DOCUMENT))
    record = Record(
        tenant=message.tenant,
        name=message.name,
        uid=message.uid,
        state=message.state,
        operation=message.operation,
        lease_start=lease_start,
        lease_end=message.lease_expire_time.ToNanoseconds(),
        revision=revision,
        document=document,
        create_time=message.create_time.ToNanoseconds(),
        update_time=now,
        counted=int(_counts(message)),
    )
    return Outcome(response=answer.SerializeToString(), put=record)


def _counts(message: pb.Environment) -> bool:
    """Whether it is one of the workspaces that its tenant may have a number of.

    One that was deleted is not, from then on; unless it is being brought back, which takes
    its place before anything is made.
    """
    return (
        not message.HasField("delete_time")
        or message.operation == pb.Environment.OPERATION_RESUMING
    )


def _lease(
    message: pb.Environment,
    operation: pb.Environment.Operation.ValueType,
    holder: str,
    now: int,
    end: int,
    token: int,
) -> None:
    """The revision of the claim is the token: it grows, even when a name is taken anew.

    An operation that is taken over has begun when it did first.
    """
    if message.operation != operation or not message.HasField("operation_start_time"):
        message.operation_start_time.CopyFrom(life.time(now))
    message.operation = operation
    message.operation_holder = holder
    message.lease_expire_time.FromNanoseconds(end)
    message.fencing_token = token
    message.ClearField("progress")


def _release(message: pb.Environment) -> None:
    message.operation = pb.Environment.OPERATION_NONE
    message.ClearField("operation_holder")
    message.ClearField("lease_expire_time")
    message.ClearField("operation_start_time")
    message.ClearField("progress")
    life.released(message)


def _lease_left(current: Record, now: int) -> int:
    """Nanoseconds that the lease still has; 0 when it is over.

    A clock that was set back to before the lease began ends it: so none lasts longer
    than twice its length, whatever the clock does.
    """
    begun = current.lease_start - _CLOCK_SLACK <= now
    return max(0, current.lease_end - now) if begun else 0


def _copy(fields: Iterable[str], source: pb.Environment, target: pb.Environment) -> None:
    """Make the fields of `target` what they are in `source`, unset included."""
    mask = FieldMask(paths=fields)
    mask.MergeMessage(source, target, replace_message_field=True, replace_repeated_field=True)


def _not_found(name: str) -> EnvironmentNotFound:
    return EnvironmentNotFound("no such environment", name=name)


def _lease_lost(name: str) -> LeaseLost:
    return LeaseLost("the fencing token is not the current one", name=name)
