"""Tokens: made, found by their hash, ended by time, by revocation and with their workspace."""

import hashlib
import os
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from cove.options.v1.options_pb2 import Role
from cove.registry.v1 import access_pb2 as pb
from cove.registry.v1.access_pb2_grpc import AccessServiceStub
from cove.registry.v1.registry_pb2 import Environment
from services.registry.retention import Retention
from services.registry.store import RequestId
from services.registry.tokens import MOST_HASHES, Draft, Token, revoked
from tests.registry.caller import Caller, Clock, refused
from tests.registry.stores import open_store
from tests.registry.test_store import DEMO, put, remove

EXISTS = grpc.StatusCode.ALREADY_EXISTS, "TOKEN_EXISTS"
REUSED = grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"
NOT_FOUND = grpc.StatusCode.NOT_FOUND, "TOKEN_NOT_FOUND"
INVALID = grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"


def secret() -> bytes:
    """The hash of a new one."""
    return hashlib.sha256(os.urandom(32)).digest()


class Tokens:
    """As the gateway asks for them, for one tenant."""

    def __init__(self, channel: grpc.aio.Channel, tenant: str = "acme") -> None:
        self._stub = AccessServiceStub(channel)
        self._metadata = (("cove-tenant", tenant), ("cove-principal", "ada"))

    async def create(
        self,
        id_: str = "bot",
        hash_: bytes = b"",
        *,
        request_id: str = "",
        ttl: float = 0,
        role: Role.ValueType = Role.ROLE_WRITER,
        **fields: Any,
    ) -> pb.Token:
        token = pb.Token(role=role, **fields)
        if ttl:
            token.ttl.FromTimedelta(timedelta(seconds=ttl))
        request = pb.CreateTokenRequest(
            token_id=id_, token=token, hash=hash_ or secret(), request_id=request_id
        )
        return (await self._stub.CreateToken(request, metadata=self._metadata)).token

    async def revoke(self, id_: str = "bot", etag: str = "", request_id: str = "") -> pb.Token:
        request = pb.RevokeTokenRequest(name=f"tokens/{id_}", etag=etag, request_id=request_id)
        return (await self._stub.RevokeToken(request, metadata=self._metadata)).token

    async def ids(self, *, ended: bool = False, page_size: int = 0) -> list[str]:
        request = pb.ListTokensRequest(show_ended=ended, page_size=page_size)
        found: list[str] = []
        while True:
            page = await self._stub.ListTokens(request, metadata=self._metadata)
            found += [each.name.removeprefix("tokens/") for each in page.tokens]
            request.page_token = page.next_page_token
            if not request.page_token:
                return found

    async def look_up(self, *hashes: bytes) -> Sequence[pb.LookUpTokensResponse.Found]:
        request = pb.LookUpTokensRequest(hashes=hashes)
        return (await self._stub.LookUpTokens(request, metadata=self._metadata)).found

    async def valid(self, *hashes: bytes) -> set[bytes]:
        return {each.hash for each in await self.look_up(*hashes)}


@pytest.fixture
def tokens(channel: grpc.aio.Channel) -> Tokens:
    return Tokens(channel)


async def test_a_token_is_found_by_its_hash_with_what_it_may(tokens: Tokens, clock: Clock) -> None:
    first, other = secret(), secret()
    made = await tokens.create("bot", first, ttl=60, description="for CI")
    await tokens.create("other", other, role=Role.ROLE_READER)
    (found,) = await tokens.look_up(first)
    assert (found.hash, found.token, found.remaining) == (first, made, Duration(seconds=60))
    assert (made.tenant, made.creator, made.role) == ("acme", "ada", Role.ROLE_WRITER)
    assert made.description == "for CI"
    assert await tokens.valid(first, other, secret()) == {first, other}


async def test_a_description_that_a_database_cannot_keep_is_refused(tokens: Tokens) -> None:
    with refused(*INVALID):
        await tokens.create(description="for\0CI")
    assert await tokens.ids(ended=True) == []


async def test_it_ends_exactly_when_it_expires(tokens: Tokens, clock: Clock) -> None:
    hash_ = secret()
    await tokens.create("bot", hash_, ttl=10)
    clock.move(10 - 1e-6)
    (found,) = await tokens.look_up(hash_)
    assert found.remaining.ToNanoseconds() == 1000
    clock.move(1e-6)
    assert not await tokens.look_up(hash_)
    assert await tokens.ids() == []
    assert await tokens.ids(ended=True) == ["bot"]


async def test_without_a_ttl_it_lasts_as_long_as_the_contract_says(
    tokens: Tokens, ada: Caller
) -> None:
    made = await tokens.create()
    uid = (await ada.register("demo")).uid
    share = await tokens.create("share", workspace="workspaces/demo", workspace_uid=uid)

    def days(token: pb.Token) -> float:
        lasts = token.expire_time.ToNanoseconds() - token.create_time.ToNanoseconds()
        return lasts / 86_400e9

    assert (days(made), days(share)) == (90, 7)


async def test_a_revoked_one_is_gone_for_good(tokens: Tokens) -> None:
    hash_, request = secret(), str(uuid.uuid4())
    made = await tokens.create("bot", hash_, request_id=request)
    with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
        await tokens.revoke(etag="0")
    ended = await tokens.revoke(etag=made.etag)
    assert ended.HasField("revoke_time")
    assert not await tokens.valid(hash_)
    assert await tokens.revoke() == ended  # And again: as it is.
    late = secret()
    assert (await tokens.create("bot", late, request_id=request)).name == made.name
    assert not await tokens.valid(hash_, late)  # A retry that comes late brings nothing back.
    assert await tokens.ids() == []
    with refused(*EXISTS, name="tokens/bot"):  # The audit log still names it.
        await tokens.create()
    with refused(*NOT_FOUND, name="tokens/none"):
        await tokens.revoke("none")


async def test_a_retry_finds_the_token_and_its_secret_is_valid_like_the_first(
    tokens: Tokens, clock: Clock
) -> None:
    request, hashes = str(uuid.uuid4()), [secret() for _ in range(3)]
    made = [await tokens.create("bot", each, request_id=request) for each in hashes]
    assert made[0] == made[1] == made[2]
    assert await tokens.valid(*hashes) == set(hashes)
    assert (await tokens.create("bot", hashes[0], request_id=request)) == made[0]
    with refused(*REUSED):
        await tokens.create("bot", role=Role.ROLE_ADMIN, request_id=request)
    more = [secret() for _ in range(MOST_HASHES)]
    for each in more:
        clock.move(1)
        await tokens.create("bot", each, request_id=request)
    assert await tokens.valid(*hashes, *more) == set(more)  # Bounded: the oldest go.


async def test_revoking_is_done_once_for_one_request(tokens: Tokens) -> None:
    await tokens.create()
    request = str(uuid.uuid4())
    ended = await tokens.revoke(request_id=request)
    assert await tokens.revoke(request_id=request) == ended
    with refused(*REUSED):
        await tokens.revoke("other", request_id=request)


async def test_tenants_have_their_own_and_know_nothing_of_others(
    channel: grpc.aio.Channel, tokens: Tokens
) -> None:
    other, hash_ = Tokens(channel, "other"), secret()
    await tokens.create("bot", hash_)
    with refused(*NOT_FOUND, name="tokens/bot"):
        await other.revoke("bot")
    assert await other.ids(ended=True) == []
    await other.create("bot")
    await other.revoke("bot")
    assert await tokens.valid(hash_) == {hash_}


async def test_a_share_ends_with_its_workspace_and_not_with_its_name(
    tokens: Tokens, ada: Caller
) -> None:
    hash_ = secret()
    uid = (await ada.register("demo")).uid
    share = await tokens.create(
        "share", hash_, workspace="workspaces/demo", workspace_uid=uid, role=Role.ROLE_READER
    )
    assert (share.workspace, share.workspace_uid) == ("workspaces/demo", uid)
    assert await tokens.valid(hash_) == {hash_}
    await ada.move("demo", Environment.STATE_READY, release_operation=True)
    await ada.move("demo", Environment.STATE_DELETING)
    assert not await tokens.valid(hash_)
    await ada.move("demo", Environment.STATE_DELETED)
    assert not await tokens.valid(hash_)
    assert await tokens.ids() == []
    await ada.move("demo", Environment.STATE_READY)  # Undeleted.
    assert await tokens.valid(hash_) == {hash_}
    await ada.deregister("demo")
    await ada.register("demo")
    assert not await tokens.valid(hash_)


async def test_a_share_is_only_of_a_workspace_that_is_there_and_never_for_administrators(
    channel: grpc.aio.Channel, tokens: Tokens, ada: Caller
) -> None:
    missing = grpc.StatusCode.NOT_FOUND, "ENVIRONMENT_NOT_FOUND"
    uid = (await ada.register("demo")).uid
    demo: dict[str, Any] = {"workspace": "workspaces/demo", "workspace_uid": uid}
    with refused(*INVALID):
        await tokens.create(role=Role.ROLE_ADMIN, **demo)
    with refused(*INVALID):
        await tokens.create(role=Role.ROLE_SERVICE)
    with refused(*INVALID):
        await tokens.create(workspace="workspaces/demo")
    elsewhere: list[dict[str, Any]] = [
        {"workspace": "workspaces/none"},
        {"workspace_uid": "a" * 16},
    ]
    for wrong in elsewhere:
        with refused(*missing):
            await tokens.create(**demo | wrong)
    with refused(*missing):
        await Tokens(channel, "other").create(**demo)
    assert await tokens.ids(ended=True) == []


async def test_a_late_retry_opens_no_other_token_that_got_the_id(database: str) -> None:
    """What was told of it then is not what it may: it was of one workspace, say."""
    clock = Clock()
    retention = Retention(audit_age=timedelta(hours=1))
    async with open_store(database, now=clock, retention=retention) as store:

        def drafted(role: Role.ValueType) -> Draft:
            token = Token("acme", "bot", role, "", "", "", "ada")
            return Draft(token=token, lifetime=60 * 10**9, hash=secret())

        first, other, late = (
            drafted(role) for role in (Role.ROLE_READER, Role.ROLE_ADMIN, Role.ROLE_READER)
        )
        request = RequestId("acme", "ada", "CreateTokenRequest", str(uuid.uuid4()), b"digest")
        answer = await store.tokens.create(first, request)
        clock.move(2 * 3600)
        while await store.sweep():
            pass
        await store.tokens.create(other)
        assert await store.tokens.create(late, request) == answer
        found = await store.tokens.valid([first.hash, other.hash, late.hash])
        assert [each.hash for each in found] == [other.hash]


async def test_the_id_of_a_share_is_nobody_elses_while_the_audit_log_names_it(
    database: str, clock: Clock
) -> None:
    """Its workspace may be long gone: what `token:ci` did was not done by another `ci`."""
    retention = Retention(audit_age=timedelta(days=1))
    async with open_store(database, now=clock, retention=retention) as store:

        async def swept() -> list[str]:
            while await store.sweep():
                pass
            return [each.id for each in await store.tokens.page("acme", "", 9, ended=True)]

        await store.write(DEMO, put(DEMO, uid="u"))
        share = Token("acme", "ci", Role.ROLE_READER, DEMO.name, "u", "", "ada")
        draft = Draft(token=share, lifetime=10**9 * 86_400 * 300, hash=secret())
        await store.tokens.create(draft)
        await store.write(DEMO, remove)
        assert await swept() == ["ci"]
        assert await store.tokens.valid([draft.hash]) == []
        clock.move(23 * 3600)
        assert await swept() == ["ci"]
        clock.move(2 * 3600)
        assert await swept() == []


async def test_they_are_listed_page_by_page(tokens: Tokens) -> None:
    ids = [f"t{number}" for number in range(5)]
    for each in ids:
        await tokens.create(each)
    await tokens.revoke("t3")
    assert await tokens.ids(page_size=2) == ["t0", "t1", "t2", "t4"]
    assert await tokens.ids(page_size=2, ended=True) == ids


async def test_what_ended_is_swept_when_the_audit_log_has_forgotten_it(
    database: str, clock: Clock
) -> None:
    retention = Retention(audit_age=timedelta(days=1))
    async with open_store(database, now=clock, retention=retention) as store:
        for id_ in ("short", "revoked", "long"):
            lifetime = 10**9 if id_ == "short" else 10**9 * 86_400 * 30
            token = Token("acme", id_, Role.ROLE_READER, "", "", "", "ada")
            await store.tokens.create(Draft(token=token, lifetime=lifetime, hash=secret()))
        request = pb.RevokeTokenRequest(name="tokens/revoked")
        await store.tokens.change("acme", "revoked", lambda *at: revoked(request, *at))
        clock.move(23 * 3600)
        await store.sweep()
        assert len(await store.tokens.page("acme", "", 9, ended=True)) == 3
        clock.move(2 * 3600)
        while await store.sweep():
            pass
        left = await store.tokens.page("acme", "", 9, ended=True)
        assert [each.id for each in left] == ["long"]
