"""A filter that was checked: what it compares is there, and its values are of the right kind."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from servicekit.filters.fields import Field, Fields
from servicekit.filters.syntax import MAX_BYTES, And, Comparison, Expression, Not, Or, parse
from servicekit.filters.values import Test, test

Match: TypeAlias = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Checked:
    """A comparison with what it needs to be made."""

    field: Field
    operator: str
    test: Test


class Filter:
    """What an expression selects of the messages that `fields` are of."""

    def __init__(self, text: str, fields: Fields, *, max_bytes: int = MAX_BYTES) -> None:
        """Raises `FilterInvalid`."""
        self.expression: Final = parse(text, max_bytes)
        self._checked: dict[Comparison, Checked] = {}
        self._match = self._compiled(self.expression, fields) if self.expression else None

    def __bool__(self) -> bool:
        """Whether it leaves anything out at all."""
        return self._match is not None

    def matches(self, message: Any) -> bool:
        return self._match is None or self._match(message)

    def only(self, *path: str) -> Collection[Any] | None:
        """What the field must be one of, as far as the expression tells; None: it does not.

        For looking up what may match in an index: all of it still has to be matched.
        """
        return self._only(self.expression, path) if self.expression else None

    def _compiled(self, expression: Expression, fields: Fields) -> Match:
        match expression:
            case Comparison():
                field = fields.find(expression)
                checked = Checked(field, expression.operator, test(field, expression))
                self._checked[expression] = checked
                read, holds = field.read, checked.test.holds
                return lambda message: (value := read(message)) is not None and holds(value)
            case And(terms):
                every = [self._compiled(term, fields) for term in terms]
                return lambda message: all(each(message) for each in every)
            case Or(terms):
                some = [self._compiled(term, fields) for term in terms]
                return lambda message: any(each(message) for each in some)
            case Not(term):
                inner = self._compiled(term, fields)
                return lambda message: not inner(message)

    def _only(self, expression: Expression, path: tuple[str, ...]) -> Collection[Any] | None:
        match expression:
            case Comparison():
                checked = self._checked[expression]
                return checked.test.only if checked.field.path == path else None
            case And(terms):
                told = [only for term in terms if (only := self._only(term, path)) is not None]
                return frozenset.intersection(*map(frozenset, told)) if told else None
            case Or(terms):
                each = [self._only(term, path) for term in terms]
                if any(only is None for only in each):
                    return None
                return frozenset().union(*(only for only in each if only is not None))
            case Not():
                return None
