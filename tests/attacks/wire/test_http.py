"""Requests at random, as the OpenAPI document allows them and as it does not."""

import json
import os
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

from gateway.rest.document import FILE
from tests.attacks.wire.watched import Watched

EXAMPLES: Final = int(os.environ.get("COVE_WIRE_EXAMPLES", "200"))
SECONDS: Final = 5.0
_LATE: Final = 504
_REFUSED: Final = (429, 503)
"""With a reason, and when to come again."""


def _operations() -> dict[str, Any]:
    schema = schemathesis.openapi.from_dict(json.loads(FILE.read_bytes()))
    results: Any = schema.get_all_operations()
    found = [result.ok() for result in results]
    return {f"{each.method.upper()} {each.path}": each for each in found}


OPERATIONS: Final = _operations()
of_each = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())


@schemathesis.serializer("application/x-tar")
def as_it_is(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def attack(target: Watched, operation: Any, examples: int) -> None:
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    cases = operation.as_strategy(generation_mode=modes[0]) | operation.as_strategy(
        generation_mode=modes[1]
    )

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def one(case: Any) -> None:
        with requests.Session() as session:
            session.trust_env = False
            told = case.as_transport_kwargs(base_url=f"http://{target.suite.http}")
            told["headers"] = {
                **dict(told.get("headers") or {}),
                "authorization": f"Bearer {target.suite.token}",
            }
            try:
                answer = session.request(**told, timeout=SECONDS, stream=True)
            except (requests.Timeout, UnicodeError, ValueError, requests.RequestException):
                return  # It goes on for as long as we like, or is none that can be sent.
            with answer:
                if answer.status_code < 500 and answer.status_code != 429:
                    return
                assert answer.status_code in (*_REFUSED, _LATE), (answer.text, told)
                assert "ERROR_REASON_" in answer.text, (answer.text, told)

    with target.unharmed():
        one()


@pytest.mark.long
@pytest.mark.timeout(1200)
@of_each
def test_every_path_answers_whatever_comes(target: Watched, operation: Any) -> None:
    attack(target, operation, EXAMPLES)
