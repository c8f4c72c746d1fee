"""Page tokens."""

import base64
import string
from pathlib import Path
from typing import Any

import pytest

from cove.options.v1.options_pb2 import Role
from servicekit import calls
from servicekit.errors import InvalidArgument
from servicekit.identity import Identity
from servicekit.paging import Page, PageTokenInvalid, PageTokens
from tests.servicekit.kit import Protos


@pytest.fixture
def tokens() -> PageTokens:
    return PageTokens(b"k" * 32)


def page(tokens: PageTokens, request: Any) -> Page:
    return tokens.page(request, default=50, maximum=1000)


@pytest.mark.parametrize(("asked", "size"), [(0, 50), (1, 1), (1000, 1000), (1001, 1000)])
def test_the_size_has_a_default_and_is_clipped(
    protos: Protos, tokens: PageTokens, asked: int, size: int
) -> None:
    assert page(tokens, protos.pb.SayRequest(page_size=asked)) == Page(size, "")


def test_a_negative_size_is_refused(protos: Protos, tokens: PageTokens) -> None:
    with pytest.raises(InvalidArgument, match="page_size: negative"):
        page(tokens, protos.pb.SayRequest(page_size=-1))


@pytest.mark.parametrize("key", ["b", "ключ", "x" * 500, "a/b c"])
def test_a_token_leads_to_the_next_page(protos: Protos, tokens: PageTokens, key: str) -> None:
    request = protos.pb.SayRequest(parent="p", page_size=2)
    request.page_token = tokens.next(request, after=key)
    request.page_size = 7  # May change between pages.
    assert page(tokens, request) == Page(7, key)


def test_a_token_is_good_for_its_own_list_only(protos: Protos, tokens: PageTokens) -> None:
    token = tokens.next(protos.pb.SayRequest(parent="p"), after="b")
    with pytest.raises(PageTokenInvalid):
        page(tokens, protos.pb.SayRequest(parent="q", page_token=token))
    with pytest.raises(PageTokenInvalid):
        page(PageTokens(b"x" * 32), protos.pb.SayRequest(parent="p", page_token=token))
    with (
        calls.detached(identity=Identity("p", "other", Role.ROLE_READER)),
        pytest.raises(PageTokenInvalid),
    ):
        page(tokens, protos.pb.SayRequest(parent="p", page_token=token))


def test_no_changed_token_is_taken(protos: Protos, tokens: PageTokens) -> None:
    request = protos.pb.SayRequest(parent="p")
    token = tokens.next(request, after="key")
    decoded = base64.urlsafe_b64decode(token + "==")
    for position in range(len(token)):
        for letter in string.ascii_letters:
            changed = token[:position] + letter + token[position + 1 :]
            if base64.urlsafe_b64decode(changed + "==") == decoded:
                continue
            request.page_token = changed
            with pytest.raises(PageTokenInvalid):
                page(tokens, request)


@pytest.mark.parametrize("token", ["x", "=", "é", "a" * 10_000, "!!!!"])
def test_garbage_is_no_token(protos: Protos, tokens: PageTokens, token: str) -> None:
    with pytest.raises(PageTokenInvalid):
        page(tokens, protos.pb.SayRequest(page_token=token))


@pytest.mark.parametrize("left", [b"", b"short"])
def test_a_key_that_a_loss_of_power_has_cut_is_made_anew(
    protos: Protos, tmp_path: Path, left: bytes
) -> None:
    path = tmp_path / "page.key"
    path.write_bytes(left)
    request = protos.pb.SayRequest()
    request.page_token = PageTokens(left).next(request, after="b")
    with pytest.raises(PageTokenInvalid):
        page(PageTokens.load(path), request)
    request.page_token = PageTokens.load(path).next(request, after="b")
    assert page(PageTokens.load(path), request).after == "b"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["page.key"]


def test_the_key_is_made_once_and_private(protos: Protos, tmp_path: Path) -> None:
    path = tmp_path / "state" / "page.key"
    request = protos.pb.SayRequest()
    request.page_token = PageTokens.load(path).next(request, after="b")
    assert page(PageTokens.load(path), request).after == "b"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["page.key"]
