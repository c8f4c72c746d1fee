"""By what callers are known: the rules of tokens, and the interface of where they are kept.

A secret is never here, but its SHA-256. A slow hash makes guessing dear where people choose
secrets; these are 256 random bits, of which no number of guesses finds one, and each call of each
caller would pay for it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple, Protocol, TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.options.v1.options_pb2 import Role
from cove.registry.v1 import access_pb2 as pb
from cove.registry.v1.registry_pb2 import Environment
from servicekit.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from services.registry.errors import EnvironmentNotFound, EtagMismatch
from services.registry.store import RequestId

NAMES: Final = "tokens/"
MOST: Final = 10_000
"""Valid tokens of one tenant."""
MOST_HASHES: Final = 8
"""Of one token: of the answers to the retries of one request. The oldest goes."""
GONE: Final = (Environment.STATE_DELETING, Environment.STATE_DELETED)
"""States of an environment whose shares are not valid."""
_WORKSPACES: Final = "workspaces/"
_ENVIRONMENTS: Final = "environments/"
_TTL: Final = timedelta(days=90)
_TTL_OF_SHARE: Final = timedelta(days=7)
_LAST: Final = 253_402_300_799 * 10**9
"""The latest time that a Timestamp may have."""


class Token(NamedTuple):
    """One, as it is kept. Times are nanoseconds; a `revoke_time` of 0 is none."""

    tenant: str
    id: str
    role: int
    workspace: str
    """Name of the environment that a share is of; empty: all of the tenant."""
    workspace_uid: str
    description: str
    creator: str
    create_time: int = 0
    expire_time: int = 0
    revoke_time: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A token that is to be made. `hash` is that of its secret."""

    token: Token
    lifetime: int
    """Nanoseconds."""
    hash: bytes


class Beside(NamedTuple):
    """What is stored when a token is to be made."""

    taken: bool
    """Whether the id is."""
    valid: int
    """Tokens of the tenant."""
    workspace: bool
    """Whether the environment of a share is there."""


class Valid(NamedTuple):
    """A token that is valid, by one of its hashes."""

    hash: bytes
    token: Token
    remaining: int
    """Nanoseconds until it expires."""


TokenChange: TypeAlias = Callable[[Token | None, int], tuple[Token, bytes]]
"""Takes what is stored, and the time; returns what to store, and the answer."""


class Tokens(Protocol):
    """Where they are kept, beside the environments."""

    async def create(self, draft: Draft, request: RequestId | None = None) -> bytes:
        """Keep what `created` makes of it, and its hash. A request that comes again finds the
        token as it was answered; while that is valid, its hash is kept beside those of before."""
        ...

    async def change(
        self, tenant: str, id_: str, change: TokenChange, request: RequestId | None = None
    ) -> bytes:
        """As `Store.write`. One that is revoked by it has no hash any more."""
        ...

    async def page(self, tenant: str, after: str, limit: int, *, ended: bool) -> list[Token]:
        """In the order of ids, after the one given; without `ended` those that are valid."""
        ...

    async def valid(self, hashes: Sequence[bytes]) -> list[Valid]:
        """Those that are valid now."""
        ...


class TokenNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_TOKEN_NOT_FOUND


class TokenExists(AlreadyExists):
    reason = ErrorReason.ERROR_REASON_TOKEN_EXISTS


class TokenLimit(ResourceExhausted):
    reason = ErrorReason.ERROR_REASON_TOKEN_LIMIT


def draft(request: pb.CreateTokenRequest, tenant: str, creator: str) -> Draft:
    """What a request asks for. Raises `InvalidArgument`."""
    asked = request.token
    share = bool(asked.workspace)
    if asked.role >= Role.ROLE_SERVICE:
        raise InvalidArgument("token.role", "is for services of the suite only")
    if share and asked.role >= Role.ROLE_ADMIN:
        raise InvalidArgument("token.role", "a share of one workspace administers no tenant")
    if share != bool(asked.workspace_uid):
        raise InvalidArgument("token.workspace_uid", "goes with a workspace")
    default = _TTL_OF_SHARE if share else _TTL
    lifetime = asked.ttl.ToNanoseconds() or round(default.total_seconds()) * 10**9
    token = Token(
        tenant=tenant,
        id=request.token_id,
        role=asked.role,
        workspace=asked.workspace.replace(_WORKSPACES, _ENVIRONMENTS, 1),
        workspace_uid=asked.workspace_uid,
        description=asked.description,
        creator=creator,
    )
    return Draft(token=token, lifetime=lifetime, hash=request.hash)


def created(draft: Draft, beside: Beside, now: int) -> tuple[Token, bytes]:
    """The token to keep, and the answer. Raises what refuses it."""
    token = draft.token
    if beside.taken:
        raise TokenExists("the id of the token is taken", name=NAMES + token.id)
    if token.workspace_uid and not beside.workspace:
        raise EnvironmentNotFound("no such environment", name=token.workspace)
    if beside.valid >= MOST:
        raise TokenLimit("the tenant has as many tokens as it may have", limit=str(MOST))
    made = token._replace(create_time=now, expire_time=min(now + draft.lifetime, _LAST))
    return made, pb.CreateTokenResponse(token=message(made)).SerializeToString()


def made_at(answer: bytes) -> int:
    """When the token was made that a create was answered with: its id may be another's by now."""
    return pb.CreateTokenResponse.FromString(answer).token.create_time.ToNanoseconds()


def revoked(request: pb.RevokeTokenRequest, token: Token | None, now: int) -> tuple[Token, bytes]:
    """The token without validity. Raises `TokenNotFound`, `EtagMismatch`."""
    if token is None:
        raise TokenNotFound("no such token", name=request.name)
    if request.etag not in ("", etag(token)):
        raise EtagMismatch("changed since it was read", name=request.name)
    ended = token if token.revoke_time else token._replace(revoke_time=now)
    return ended, pb.RevokeTokenResponse(token=message(ended)).SerializeToString()


def etag(token: Token) -> str:
    return f"{token.revoke_time or token.create_time:x}"


def message(token: Token) -> pb.Token:
    made = pb.Token(
        name=NAMES + token.id,
        tenant=token.tenant,
        role=Role.ValueType(token.role),
        workspace=token.workspace.replace(_ENVIRONMENTS, _WORKSPACES, 1),
        workspace_uid=token.workspace_uid,
        description=token.description,
        creator=token.creator,
        create_time=_time(token.create_time),
        expire_time=_time(token.expire_time),
        etag=etag(token),
    )
    if token.revoke_time:
        made.revoke_time.CopyFrom(_time(token.revoke_time))
    return made


def _time(nanoseconds: int) -> Timestamp:
    made = Timestamp()
    made.FromNanoseconds(nanoseconds)
    return made
