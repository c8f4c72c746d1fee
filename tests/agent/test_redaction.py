"""Secrets in output, however the output is cut into pieces."""

import random

import pytest

from agent.inside.redaction import MASK, Redactor, Secrets


def fed(hidden: tuple[bytes, ...], pieces: list[bytes]) -> bytes:
    redactor = Redactor(hidden)
    return b"".join([*map(redactor.feed, pieces), redactor.rest()])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_value_is_found_across_pieces(size: int) -> None:
    text = b"a secret-1 b secret-12 c secret-" + b"secret-1" * 2 + b" secre"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    hidden = Secrets({b"A": b"secret-1", b"B": b"secret-12"}, redact=True).hidden
    assert fed(hidden, pieces) == b"a *** b *** c secret-****** secre"


def test_what_overlaps_itself_is_found() -> None:
    assert fed((b"aabaa",), [b"xaaba", b"abaay"]) == b"x***baay"
    assert fed((b"aaaa",), [b"aaa", b"aaaaaa"]) == b"***" * 2 + b"a"


def test_values_that_overlap_each_other_are_found() -> None:
    assert fed((b"aaaX", b"XYZbbbb-longer", b"bbbb"), [b"aaaXYZbbbb"]) == b"***YZ***"


def test_no_piece_holds_back_more_than_may_be_a_value() -> None:
    redactor = Redactor((b"password",))
    assert redactor.feed(b"enter the pass") == b"enter the "
    assert redactor.feed(b"phrase: ") == b"passphrase: "
    assert redactor.rest() == b""


def test_no_cut_shows_a_value() -> None:
    draw = random.Random(5)
    hidden = (b"abcabd", b"cabca", b"bbbb")
    for _ in range(300):
        text = bytes(draw.choices(b"abcd", weights=(5, 5, 3, 1), k=60))
        cuts = sorted(draw.sample(range(60), 6))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, 60], strict=True)]
        whole = fed(hidden, pieces)
        assert not any(value in whole for value in hidden)
        # A value that begins earlier and ends later may be missed only where another was taken.
        assert len(whole.replace(MASK, b"")) <= len(text)
        if not any(value in text for value in hidden):
            assert whole == text


def test_short_values_are_not_looked_for() -> None:
    assert Secrets({b"A": b"yes"}, redact=True).hidden == ()
    assert Secrets({b"A": b"long enough"}, redact=False).hidden == ()
