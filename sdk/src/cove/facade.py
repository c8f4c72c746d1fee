"""Blocking methods made of async ones, with their parameters, types and documentation.

`read = call(Files.read)` in a class is the method `read` of the async object that the class stands
for, run in the loop of its client. A type checker sees the signature of `Files.read` with what
it returns when it is awaited.
"""

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import closing
from functools import wraps
from types import GenericAlias
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_args

from cove.client import Client
from cove.loop import Loop

P = ParamSpec("P")
A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")


class Facade(Generic[T]):
    """What an async object can do, for callers that wait."""

    def __init__(self, loop: Loop[Client], of: T) -> None:
        self._loop = loop
        self._of = of

    def __repr__(self) -> str:
        return repr(self._of)


def call(
    method: Callable[Concatenate[T, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Facade[T], P], R]:
    """The method as one that returns when it is done."""

    @wraps(method)
    def blocking(self: Facade[T], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._loop.run(method(self._of, *args, **kwargs))

    return blocking


def call_for(
    kind: Callable[[Loop[Client], A], R],
    method: Callable[Concatenate[T, P], Coroutine[Any, Any, A]],
) -> Callable[Concatenate[Facade[T], P], R]:
    """The same, where it returns an object that has a facade of its own."""

    @wraps(method)
    def blocking(self: Facade[T], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return kind(self._loop, self._loop.run(method(self._of, *args, **kwargs)))

    return _returning(blocking, kind)


def iterate(
    method: Callable[Concatenate[T, P], AsyncGenerator[R, None]],
) -> Callable[Concatenate[Facade[T], P], Generator[R, None, None]]:
    """The method as one whose results are iterated over."""

    @wraps(method)
    def iterating(
        self: Facade[T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Generator[R, None, None]:
        return self._loop.iterate(method(self._of, *args, **kwargs))

    item = get_args(inspect.signature(method).return_annotation)[0]
    return _returning(iterating, GenericAlias(Generator, (item, None, None)))


def iterate_for(
    kind: Callable[[Loop[Client], A], R],
    method: Callable[Concatenate[T, P], AsyncGenerator[A, None]],
) -> Callable[Concatenate[Facade[T], P], Generator[R, None, None]]:
    """The same, where the results have facades of their own."""

    @wraps(method)
    def iterating(
        self: Facade[T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Generator[R, None, None]:
        with closing(self._loop.iterate(method(self._of, *args, **kwargs))) as found:
            for each in found:
                yield kind(self._loop, each)

    return _returning(iterating, GenericAlias(Generator, (kind, None, None)))


def _returning(function: R, what: Any) -> R:
    """The function, whose documentation says that it returns `what`."""
    signature = inspect.signature(function)  # type: ignore[arg-type]
    function.__signature__ = signature.replace(return_annotation=what)  # type: ignore[attr-defined]
    return function
