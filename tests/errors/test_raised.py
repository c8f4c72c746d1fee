"""The code and the page agree, also on failures that no test provokes."""

from scripts.reasons import BEHIND, codes_of_classes, said_by_gateway
from tests.errors.page import promises
from tests.errors.raised import raised


def test_failures_have_a_reason_and_the_metadata_that_the_page_promises() -> None:
    wrong = []
    places = [*raised()]
    for place in places:
        promised = promises()[place.reason]
        lacking = frozenset() if place.more else promised.always - place.keys
        if place.reason == "UNSPECIFIED" or lacking or not place.keys <= promised.keys:
            wrong.append(f"{place}: the page promises {promised.always}, {promised.maybe}")
    assert not wrong, "\n".join(wrong)
    assert len(places) > 300


def test_the_page_says_the_codes_that_kinds_of_failures_have() -> None:
    codes = codes_of_classes()
    for name, promised in promises().items():
        expected = set() if name == "UNSPECIFIED" else codes.get(name, set())
        assert set(promised.http) == expected, name


def test_rpcs_name_reasons_with_the_code_that_they_have() -> None:
    for name, codes in said_by_gateway().items():
        promised = promises()[name]
        assert codes - {"in an answer"} <= set(promised.http), name
        assert ("in an answer" in codes) == (promised.told == "in `failure`"), name


def test_what_callers_are_told_is_not_said_to_be_behind_the_gateway() -> None:
    assert not BEHIND & said_by_gateway().keys()
