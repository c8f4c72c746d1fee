"""Several ways to be known at once."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from servicekit.identity import Authenticator, Caller, Identity

Applies: TypeAlias = Callable[[Caller], bool]


class Several:
    """What a caller shows decides who is asked: the first that applies, and no other.

    So nobody who fails by one way gets in by a weaker one. `otherwise` is asked when none applies.
    """

    def __init__(
        self, asked: Sequence[tuple[Applies, Authenticator]], otherwise: Authenticator
    ) -> None:
        self._asked = tuple(asked)
        self._otherwise = otherwise

    async def authenticate(self, caller: Caller) -> Identity:
        for applies, authenticator in self._asked:
            if applies(caller):
                return await authenticator.authenticate(caller)
        return await self._otherwise.authenticate(caller)
