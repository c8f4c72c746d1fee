"""The pages that are written from code are up to date, and complete."""

import pytest

from cove.errors.v1.errors_pb2 import ErrorReason
from scripts import gen_docs
from servicekit.remedies import REMEDIES

REASONS = [name.removeprefix("ERROR_REASON_") for name in ErrorReason.DESCRIPTOR.values_by_name]


def test_every_reason_has_a_remedy_and_nothing_else_has() -> None:
    assert set(REMEDIES) == set(REASONS)


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_is_documented(reason: str) -> None:
    (row,) = (
        line
        for line in gen_docs.ERRORS.read_text().splitlines()
        if line.startswith(f"| `{reason}` |")
    )
    _, _, told, cause, _, remedy, _, _ = (cell.strip() for cell in row.split("|"))
    assert told
    assert len(cause) > 10
    assert len(remedy) > 10


def test_the_page_of_failures_is_up_to_date() -> None:
    assert gen_docs.errors_page() == gen_docs.ERRORS.read_text(), "run scripts/gen_docs.py"


def test_the_page_of_settings_is_up_to_date() -> None:
    page = gen_docs.CONFIGURATION.read_text()
    assert gen_docs.configuration_page() == page, "run scripts/gen_docs.py"
