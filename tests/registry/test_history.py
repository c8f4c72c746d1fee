"""The judge of histories: what cannot have happened is refused, and all that can is not."""

import random
from dataclasses import replace

import pytest

from cove.registry.v1 import registry_pb2 as pb
from tests.registry.history import NEVER, Call, judge
from tests.registry.model import Ask, Env, Refused, Removed, step

PENDING = pb.Environment.STATE_PENDING
CREATING = int(pb.Environment.OPERATION_CREATING)
DELETING = int(pb.Environment.OPERATION_DELETING)
MADE = Env(PENDING, "0", CREATING, "a", "u", "e1", 1, 1000)
REGISTER = Call(Ask("register", "0", holder="a"), MADE, 0, 1)


def linearizable(*calls: Call) -> bool:
    return judge(step, None, calls).linearizable


def get(answer: object, began: int, ended: int) -> Call:
    return Call(Ask("get"), answer, began, ended)


def update(value: str, etag: str, began: int, ended: int, *, on: str = "") -> Call:
    answer = replace(MADE, value=value, etag=etag)
    return Call(Ask("update", value, etag=on), answer, began, ended)


def claim(holder: str, token: int, began: int, ended: int, before: Env = MADE) -> Call:
    etag, end = f"e{token}", ended + 1000
    answer = replace(
        before, operation=DELETING, holder=holder, etag=etag, token=token, lease_end=end
    )
    return Call(Ask("claim", operation=DELETING, holder=holder), answer, began, ended)


def test_calls_at_the_same_time_may_have_happened_in_any_order() -> None:
    first, second = update("1", "e2", 2, 6), update("2", "e3", 3, 5)
    for last in (first, second):
        assert linearizable(REGISTER, first, second, get(last.answer, 7, 8))


def test_a_lost_update_is_refused() -> None:
    """Both were told that theirs was the one that replaced the first etag."""
    one = update("1", "e2", 2, 5, on="e1")
    assert linearizable(REGISTER, one)
    assert not linearizable(REGISTER, one, update("2", "e3", 3, 6, on="e1"))


def test_a_stale_read_is_refused() -> None:
    assert linearizable(REGISTER, update("1", "e2", 2, 5), get(MADE, 4, 6))
    assert not linearizable(REGISTER, update("1", "e2", 2, 3), get(MADE, 4, 6))


def test_a_read_that_goes_back_is_refused() -> None:
    new = update("1", "e2", 2, 9)
    assert not linearizable(REGISTER, new, get(new.answer, 3, 4), get(MADE, 5, 6))


def test_a_lease_that_is_given_to_two_is_refused() -> None:
    first = claim("b", 5, 1001, 1003)
    assert linearizable(REGISTER, first)
    assert not linearizable(REGISTER, first, claim("c", 6, 1002, 1004, first.answer))
    over = claim("c", 6, 2003, 2004, first.answer)
    assert linearizable(REGISTER, first, over)


def test_a_lease_that_has_run_out_is_refused_to_nobody() -> None:
    refused = Refused("OPERATION_IN_PROGRESS")
    ask = Ask("claim", operation=DELETING, holder="b")
    assert linearizable(REGISTER, Call(ask, refused, 999, 1001))
    assert not linearizable(REGISTER, Call(ask, refused, 1000, 1001))


def test_a_write_with_a_token_of_the_past_is_refused() -> None:
    taken = claim("b", 5, 1001, 1003)
    late = Call(
        Ask("update", "9", token=1), replace(taken.answer, value="9", etag="e9"), 1004, 1005
    )
    assert not linearizable(REGISTER, taken, late)
    assert linearizable(REGISTER, taken, replace(late, answer=Refused("LEASE_LOST")))


def test_a_call_without_an_answer_happens_once_at_any_time_or_never() -> None:
    unanswered = Call(Ask("update", "1"), None, 2, NEVER)
    seen = replace(MADE, value="1", etag="e7")
    assert linearizable(REGISTER, unanswered, get(MADE, 3, 4))
    assert linearizable(REGISTER, unanswered, get(MADE, 3, 4), get(seen, 5, 6), get(seen, 7, 8))
    assert not linearizable(REGISTER, unanswered, get(seen, 3, 4), get(MADE, 5, 6))
    other = replace(seen, etag="e8")
    assert not linearizable(REGISTER, unanswered, get(seen, 3, 4), get(other, 5, 6))


def test_an_id_that_is_given_to_two_is_refused() -> None:
    again = Call(Ask("register", "1", holder="b"), replace(MADE, value="1", holder="b"), 2, 3)
    assert not linearizable(REGISTER, again)
    removed = Call(Ask("deregister"), Removed, 2, 4)
    assert linearizable(REGISTER, removed, replace(again, began=3, ended=5))
    assert linearizable(REGISTER, replace(again, answer=Refused("ENVIRONMENT_EXISTS")))


def test_what_changed_has_another_etag() -> None:
    assert not linearizable(REGISTER, update("1", "e1", 2, 3))


@pytest.mark.parametrize("seed", range(5))
def test_a_long_history_is_judged_and_one_wrong_read_in_it_found(seed: int) -> None:
    """Made one after the other, with calls that overlap many others."""
    dice, state, calls = random.Random(seed), MADE, [REGISTER]
    for number in range(150):
        at = 10 * (number + 1)
        began, ended = at - dice.randrange(1, 40), at + dice.randrange(1, 40)
        began = max(2, began)
        if dice.random() < 0.5:
            state = replace(state, value=str(number), etag=f"n{number}")
            calls.append(Call(Ask("update", str(number)), state, began, ended))
        else:
            calls.append(get(state, began, ended))
    assert linearizable(*calls)
    wrong = get(replace(MADE, value="0"), 1400, 1401)
    assert not linearizable(*calls, wrong)
