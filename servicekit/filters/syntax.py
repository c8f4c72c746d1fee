"""The grammar of AIP-160, without functions and without words that stand by themselves.

    expression = sequence {"AND" sequence}      sequence = factor {factor}, all of which hold
    factor     = term {"OR" term}               term     = ["NOT" | "-"] simple
    simple     = comparison | "(" expression ")"

OR binds tighter than AND, as AIP-160 has it: `a AND b OR c` is `a AND (b OR c)`.
"""

import re
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

from cove.errors.v1.errors_pb2 import ErrorReason
from servicekit.errors import InvalidArgument

MAX_BYTES: Final = 4096
MAX_DEPTH: Final = 16
MAX_COMPARISONS: Final = 64
MAX_WILDCARDS: Final = 8
_SHOWN: Final = 40

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_/-]*")
_OPERATOR: Final = re.compile(r"<=|>=|!=|<|>|=|:")
_BARE: Final = re.compile(r"[^ \t\r\n()\"'<>=!,\\]+")
_KEYWORD: Final = re.compile(r"(AND|OR|NOT)(?=[ \t\r\n(]|$)")
_ESCAPABLE: Final = frozenset("\\\"'*")
_OPERATORS: Final = "= != < <= > >= :"


class FilterInvalid(InvalidArgument):
    """Says where, what was found there, and what is allowed."""

    reason = ErrorReason.ERROR_REASON_FILTER_INVALID

    def __init__(self, at: int, found: str, allowed: str, remedy: str = "") -> None:
        shown = found if len(found) <= _SHOWN else f"{found[:_SHOWN]}..."
        super().__init__(
            "filter",
            f"at {at + 1}: found {shown or 'the end'}, allowed: {allowed}",
            remedy=remedy,
            position=str(at + 1),
            found=shown,
            allowed=allowed,
        )


@dataclass(frozen=True, slots=True)
class Value:
    """What a field is compared with."""

    parts: tuple[str, ...]
    """What is between the wildcards; a single one where there is none."""

    at: int

    @property
    def text(self) -> str:
        """As it was written, without quotes and escapes."""
        return "*".join(self.parts)

    @property
    def any(self) -> bool:
        """A `*` by itself."""
        return self.parts == ("", "")


@dataclass(frozen=True, slots=True)
class Comparison:
    path: tuple[str, ...]
    operator: str
    value: Value
    at: int


@dataclass(frozen=True, slots=True)
class And:
    terms: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Or:
    terms: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Not:
    term: "Expression"


Expression: TypeAlias = Comparison | And | Or | Not


def parse(text: str, max_bytes: int = MAX_BYTES) -> Expression | None:
    """None: there is no filter. Raises `FilterInvalid`."""
    size = len(text.encode(errors="surrogatepass"))
    if size > max_bytes:
        raise FilterInvalid(0, f"{size} bytes", f"{max_bytes} bytes")
    return _Parser(text).whole()


def text_of(expression: Expression) -> str:
    """A text that parses to the same expression, with no more parentheses than it had."""
    match expression:
        case Comparison(path, operator, value):
            written = ".".join(each if _SEGMENT.fullmatch(each) else _quoted(each) for each in path)
            return f'{written} {operator} "{"*".join(map(_escaped, value.parts))}"'
        case And(terms):
            return " AND ".join(_within(term, And) for term in terms)
        case Or(terms):
            return " OR ".join(_within(term, And, Or) for term in terms)
        case Not(term):
            return f"NOT {_within(term, And, Or, Not)}"


def _within(term: Expression, *kinds: type[Expression]) -> str:
    """In parentheses where it is of one of these kinds."""
    return f"({text_of(term)})" if isinstance(term, kinds) else text_of(term)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._comparisons = 0

    def whole(self) -> Expression | None:
        self._space()
        if self._at == len(self._text):
            return None
        expression = self._expression()
        if self._at < len(self._text):
            self._refuse("AND, OR, or the end")
        return expression

    def _expression(self) -> Expression:
        terms = [self._factor()]
        while True:
            apart = self._space()
            if self._at == len(self._text) or self._text[self._at] == ")":
                return terms[0] if len(terms) == 1 else And(tuple(terms))
            if not self._keyword("AND") and not apart:
                self._refuse("AND, OR, or the end")
            terms.append(self._factor())

    def _factor(self) -> Expression:
        terms = [self._term()]
        while True:
            before = self._at
            self._space()
            if not self._keyword("OR"):
                self._at = before
                return terms[0] if len(terms) == 1 else Or(tuple(terms))
            terms.append(self._term())

    def _term(self) -> Expression:
        self._space()
        if self._keyword("NOT"):
            self._space()
            return Not(self._simple())
        if self._text.startswith("-", self._at):
            self._at += 1
            return Not(self._simple())
        return self._simple()

    def _simple(self) -> Expression:
        if not self._text.startswith("(", self._at):
            return self._comparison()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"{MAX_DEPTH} parentheses within each other")
        self._at += 1
        expression = self._expression()
        if not self._text.startswith(")", self._at):
            self._refuse("AND, OR, or )")
        self._at += 1
        self._depth -= 1
        return expression

    def _comparison(self) -> Comparison:
        at = self._at
        if _KEYWORD.match(self._text, at):
            self._refuse("a field, or (")
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            self._refuse(f"{MAX_COMPARISONS} comparisons")
        path = self._path()
        end = self._at
        self._space()
        operator = _OPERATOR.match(self._text, self._at)
        if operator is None:
            word = self._text[at:end]
            raise FilterInvalid(
                self._at,
                self._found(),
                f"one of {_OPERATORS} after {word}",
                f'A word by itself is no filter: compare a field with it, say name = "*{word}*". '
                "Put quotes around a value that has spaces.",
            )
        self._at = operator.end()
        self._space()
        return Comparison(path, operator[0], self._value(), at)

    def _path(self) -> tuple[str, ...]:
        path = [self._segment("a field, or (")]
        while self._text.startswith(".", self._at):
            self._at += 1
            quoted = self._text[self._at : self._at + 1] in ('"', "'")
            path.append("*".join(self._quoted()) if quoted else self._segment("a field"))
        return tuple(path)

    def _segment(self, allowed: str) -> str:
        found = _SEGMENT.match(self._text, self._at)
        if found is None:
            self._refuse(allowed)
        self._at = found.end()
        return found[0]

    def _value(self) -> Value:
        at = self._at
        if self._text[at : at + 1] in ('"', "'"):
            parts = self._quoted()
        else:
            bare = _BARE.match(self._text, at)
            if bare is None or _KEYWORD.match(self._text, at):
                self._refuse("a value", "Put quotes around a value that is not a plain word.")
            self._at = bare.end()
            parts = bare[0].split("*")
        if len(parts) - 1 > MAX_WILDCARDS:
            raise FilterInvalid(at, f"{len(parts) - 1} wildcards", f"{MAX_WILDCARDS} in a value")
        return Value(tuple(parts), at)

    def _quoted(self) -> list[str]:
        """What is between the wildcards of a string in quotes."""
        began, quote = self._at, self._next()
        parts = [""]
        while (character := self._next()) != quote:
            if not character:
                self._at = began
                self._refuse(f"a string that ends with {quote}")
            if character == "*":
                parts.append("")
                continue
            if character == "\\" and (character := self._next()) not in _ESCAPABLE:
                self._at -= 1
                self._refuse("\\ \" ' * after a backslash", "Write a backslash twice.")
            parts[-1] += character
        return parts

    def _next(self) -> str:
        """One character, and past it; empty at the end."""
        character = self._text[self._at : self._at + 1]
        self._at += 1
        return character

    def _space(self) -> bool:
        """Skip it. Whether there was any."""
        before = self._at
        space = _SPACE.match(self._text, before)
        assert space
        self._at = space.end()
        return self._at > before

    def _keyword(self, word: str) -> bool:
        found = _KEYWORD.match(self._text, self._at)
        if found is None or found[1] != word:
            return False
        self._at = found.end()
        return True

    def _found(self) -> str:
        """What stands here, as far as the next space."""
        return re.split(r"[ \t\r\n]", self._text[self._at : self._at + _SHOWN + 1], maxsplit=1)[0]

    def _refuse(self, allowed: str, remedy: str = "") -> NoReturn:
        raise FilterInvalid(self._at, self._found(), allowed, remedy)


def _escaped(text: str) -> str:
    return "".join(f"\\{each}" if each in '\\"*' else each for each in text)


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'
