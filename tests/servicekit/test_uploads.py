"""Uploads that are refused while they come."""

from collections.abc import AsyncIterator

import pytest

from servicekit.errors import InvalidArgument, NotFound
from servicekit.uploads import heard


async def test_the_first_refusal_is_told() -> None:
    """And not what is found wrong in the rest."""
    taken = []

    async def requests() -> AsyncIterator[int]:
        for number in range(3):
            taken.append(number)
            yield number
        raise InvalidArgument("x", "wrong")

    async def refuse() -> None:
        sent = requests()
        async with heard(sent):
            await anext(sent)
            raise NotFound("no such file")

    with pytest.raises(NotFound):
        await refuse()
    assert taken == [0, 1, 2]
