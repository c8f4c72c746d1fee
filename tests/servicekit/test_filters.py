"""What a filter selects, and what is said of one that is wrong."""

import time
from contextlib import suppress
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cove.registry.v1.registry_pb2 import Environment, EnvironmentSpec
from servicekit.filters.filters import Filter
from servicekit.filters.order import OrderInvalid, Term, parse_order
from servicekit.filters.syntax import FilterInvalid, parse, text_of
from services.registry.fields import FIELDS

READY: Final = Environment.STATE_READY


def environment() -> Environment:
    made = Environment(
        name="environments/demo",
        state=READY,
        labels={"team": "web", "a.b/c": "y", "star": "*", "empty": ""},
        spec=EnvironmentSpec(repository="https://example.org/app.git", depth=3),
        warnings=["first thing", "second"],
        keep_on_failure=True,
    )
    made.create_time.FromJsonString("2026-01-01T12:00:00.000000001Z")
    return made


SELECTS: Final = (
    *("", "  ", "name = demo", 'name = "environments/demo"', "name:demo", "name = d*o"),
    *('name = "*"', "name=environments/d*", "name >= demo", "name < demp", "name != other"),
    *("state = READY", "state=ready", "state = STATE_READY", "state : READY", "state != FAILED"),
    *("labels:team", "labels.team = web", "labels.team:*", 'labels:"a.b/c"', "labels.a.b/c = y"),
    *('labels."a.b/c" = y', r'labels.star = "\*"', "labels.team = w*b", "labels.team != other"),
    *('labels.empty = ""', "NOT labels.none = x", "-labels:none", "labels:*"),
    *("create_time > 2026-01-01T12:00:00Z", 'create_time < "2026-01-01T12:00:01+00:00"'),
    *("create_time >= 2026-01-01T13:00:00.000000001+01:00", "create_time:*", "-delete_time:*"),
    *("spec.depth = 3", "spec.depth >= 2.5", "spec.depth:*", "spec.depth != -1"),
    *('spec.repository = "*example.org*"', "keep_on_failure = true", 'warnings:"first*"'),
    *("warnings : second", "warnings:*", "state = READY labels.team = web"),
    *("name = x OR name = demo AND state = READY", "NOT (name = x OR state = FAILED)"),
    *("(((name = demo)))", "name='demo'", "name\t=\ndemo", "-(state=FAILED)"),
)
SELECTS_NOT: Final = (
    *("name = dem", "name = x*", "name = *x*", "name = dd*o", "state = FAILED", "state != READY"),
    *("labels:none", "labels.none = x", "labels.none != x", 'labels.none = ""', "labels.team = w"),
    *("delete_time:*", "delete_time < 2027-01-01T00:00:00Z", "delete_time != 2027-01-01T00:00:00Z"),
    *("spec.limits.memory_bytes = 0", "spec.limits.memory_bytes != 1", "failure:*", "progress:*"),
    *("keep_on_failure = false", "warnings:third", "-name = demo", "NOT labels:team"),
    *("name = demo AND state = FAILED OR state = PENDING", r'labels.team = "\*"', "labels.empty:*"),
)


@pytest.mark.parametrize("text", SELECTS)
def test_a_filter_selects(text: str) -> None:
    assert Filter(text, FIELDS).matches(environment())


@pytest.mark.parametrize("text", SELECTS_NOT)
def test_a_filter_selects_not(text: str) -> None:
    assert not Filter(text, FIELDS).matches(environment())


@pytest.mark.parametrize(
    ("text", "position", "found", "allowed"),
    [
        ("demo", 5, "", "one of = != < <= > >= : after demo"),
        ("my demo", 4, "demo", "one of = != < <= > >= : after my"),
        ("name =", 7, "", "a value"),
        ("name = AND", 8, "AND", "a value"),
        ('name = "x', 8, '"x', 'a string that ends with "'),
        (r'name = "\d"', 10, 'd"', "\\ \" ' * after a backslash"),
        ("nope = 1", 1, "nope", "the fields name, uid"),
        ("handle = 1", 1, "handle", "the fields name, uid"),
        ("annotations.a = 1", 1, "annotations.a", "the fields name, uid"),
        ("labels = 1", 1, "labels =", "labels with :"),
        ("state < READY", 1, "state <", "state with = != :"),
        ("state = GREAT", 9, "GREAT", "PENDING, READY, SUSPENDED, FAILED, DELETING, DELETED"),
        ("create_time > today", 15, "today", "a time of RFC 3339"),
        ("create_time > 2026-02-30T00:00:00Z", 15, "2026-02-30T00:00:00Z", "a time of RFC 3339"),
        ("spec.depth = many", 14, "many", "a number"),
        ("keep_on_failure = yes", 19, "yes", "true, false"),
        ("name > a*", 8, "a*", "no wildcard after >"),
        ('labels:"a*"', 8, "a*", "a key without wildcard, or *"),
        ("failure:x", 9, "x", "failure:*"),
        ("name = a AND", 13, "", "a field, or ("),
        ("name = a OR OR", 13, "OR", "a field, or ("),
        ("(name = a", 10, "", "AND, OR, or )"),
        ("name = a)", 9, ")", "AND, OR, or the end"),
        ("name = f(x)", 9, "(x)", "AND, OR, or the end"),
        ("NOT NOT name = a", 5, "NOT", "a field, or ("),
        ("(" * 17 + "name = a", 17, "(name", "16 parentheses within each other"),
        (" AND ".join(["name = a"] * 65), 833, "name", "64 comparisons"),
        ("name = " + "a*" * 9, 8, "9 wildcards", "8 in a value"),
        ("name = " + "a" * 4096, 1, "4103 bytes", "4096 bytes"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    text: str, position: int, found: str, allowed: str
) -> None:
    with pytest.raises(FilterInvalid) as caught:
        Filter(text, FIELDS)
    metadata = caught.value.metadata
    assert (metadata["position"], metadata["found"]) == (str(position), found)
    assert metadata["allowed"].startswith(allowed)
    assert caught.value.violations[0].field == "filter"


@pytest.mark.parametrize("text", SELECTS + SELECTS_NOT)
def test_an_expression_written_again_is_the_same(text: str) -> None:
    once = parse(text)
    if once:
        again = parse(text_of(once))
        assert again
        assert text_of(again) == text_of(once)


@pytest.mark.parametrize(
    ("text", "only"),
    [
        ("", None),
        ("name = a", None),
        ("state = READY", {READY}),
        ("name = a AND state = READY", {READY}),
        ("state = READY OR state = FAILED", {READY, Environment.STATE_FAILED}),
        ("state = READY OR name = a", None),
        ("NOT state = READY", None),
        ("state = READY AND state = FAILED", set()),
    ],
)
def test_what_an_index_may_be_asked_for(text: str, only: set[int] | None) -> None:
    told = Filter(text, FIELDS).only("state")
    assert (told if told is None else set(told)) == only


_WORDS: Final = st.sampled_from(
    (
        *(
            "AND",
            "OR",
            "NOT",
            "-",
            "(",
            ")",
            "=",
            "!=",
            "<",
            ">=",
            ":",
            "*",
            '"',
            "'",
            "\\",
            ".",
            ",",
        ),
        *(
            "name",
            "state",
            "READY",
            "labels",
            "labels.team",
            "create_time",
            "spec.depth",
            "warnings",
        ),
        *("2026-01-01T00:00:00Z", "1s", "-5", "1e9", "true", "NaN", " ", "\t", "\0", "é", "\ud800"),
    )
)
_TEXT: Final = st.lists(_WORDS | st.text(max_size=6), max_size=60).map("".join)


@given(text=_TEXT | st.text(max_size=200), spaces=st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_filter_or_told_to_be_none(text: str, spaces: bool) -> None:
    if spaces:
        text = " ".join(text)
    refused: FilterInvalid | None = None
    made: Filter | None = None
    try:
        made = Filter(text, FIELDS)
    except FilterInvalid as error:
        refused = error
    if refused:
        assert 1 <= int(refused.metadata["position"]) <= len(text) + 1
        assert refused.metadata["allowed"]
        refused.message.encode(errors="surrogatepass")
    if made:
        assert made.matches(environment()) in (True, False)
    if made and made.expression:
        assert Filter(text_of(made.expression), FIELDS).expression


@pytest.mark.parametrize(
    "text",
    [
        "(" * 4096,
        "-" * 4096,
        'name = "' + "\\*" * 2000 + '"',
        " ".join(["NOT"] * 1000),
        " OR ".join([f'spec.repository = "*{"a*" * 7}b"'] * 64),
        "name = " + "a" * 4000,
        "name" + ".a" * 2000 + " = x",
    ],
)
def test_no_filter_takes_long(text: str) -> None:
    hostile = environment()
    hostile.spec.repository = "a" * 4096
    began = time.process_time()
    with suppress(FilterInvalid):
        Filter(text, FIELDS).matches(hostile)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", ()),
        (" ", ()),
        ("name", (Term("name"),)),
        ("create_time desc, name", (Term("create_time", descending=True), Term("name"))),
        (" state asc ,name  desc ", (Term("state"), Term("name", descending=True))),
    ],
)
def test_an_order_is_read(text: str, terms: tuple[Term, ...]) -> None:
    assert parse_order(text, ("name", "create_time", "state")) == terms


@pytest.mark.parametrize(
    "text",
    ["nope", "name,", ",", "name up", "name DESC", "name, name", "name desc desc", "n" * 300],
)
def test_an_order_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(OrderInvalid):
        parse_order(text, ("name", "create_time", "state"))
