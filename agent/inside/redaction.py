"""Secrets of one command: what it gets, and what is not to be seen in its output."""

MASK = b"***"

_FEWEST, _LONGEST = 4, 4096
_MOST = 64


class Secrets:
    """Variables of the command, and whether their values are masked."""

    def __init__(self, variables: dict[bytes, bytes], *, redact: bool) -> None:
        self.variables = variables
        values = {each for each in variables.values() if len(each) >= _FEWEST}
        if redact and any(len(each) > _LONGEST for each in values):
            raise ValueError("too long to be redacted")
        # The longest first, so that none is left half seen.
        self.hidden = tuple(sorted(values, key=len, reverse=True)) if redact else ()


NONE = Secrets({}, redact=False)


def taken(fields: list[bytes], at: int) -> Secrets:
    """Takes out of the fields of a request what begins at `at`: redact, count, pairs."""
    redact, count = fields[at] != b"0", int(fields[at + 1])
    if not 0 < count <= _MOST:
        raise ValueError("no secrets, or too many")
    pairs = fields[at + 2 : at + 2 + count]
    del fields[at : at + 2 + count]
    return Secrets(dict(pair.split(b"=", 1) for pair in pairs), redact=redact)


class Redactor:
    """Masks exact values in what comes in pieces.

    What could be the beginning of a value is kept until more comes, or the end.
    """

    def __init__(self, hidden: tuple[bytes, ...]) -> None:
        self._hidden = hidden
        self._kept = b""

    def feed(self, data: bytes) -> bytes:
        """What may be shown now."""
        data = self._kept + data
        shown, at = self._masked(data, _undecided(data, 0, self._hidden))
        self._kept = data[at:]
        return shown

    def rest(self) -> bytes:
        """What was kept, as nothing more comes."""
        data, self._kept = self._kept, b""
        return self._masked(data, len(data))[0]

    def _masked(self, data: bytes, end: int) -> tuple[bytes, int]:
        """What comes before `end`, masked, and where that ends: a value may reach further.

        The first value counts, of those that begin together the longest.
        """
        shown = []
        at = 0
        found = {value: data.find(value) for value in self._hidden}
        while found := {value: place for value, place in found.items() if place >= 0}:
            first = min(found, key=lambda value: (found[value], -len(value)))
            if found[first] >= end:
                break
            shown += [data[at : found[first]], MASK]
            at = found[first] + len(first)
            if at > end:
                end = _undecided(data, at, self._hidden)
            for value, place in found.items():
                if place < at:
                    found[value] = data.find(value, at)
        shown.append(data[at:end])
        return b"".join(shown), end


def _undecided(data: bytes, at: int, hidden: tuple[bytes, ...]) -> int:
    """From where on `data` may be the beginning of a value; its end if it is none."""
    return len(data) - max(_beginning(data, at, value) for value in hidden)


def _beginning(data: bytes, at: int, value: bytes) -> int:
    """Bytes at the end of `data`, after `at`, with which `value` may begin."""
    at = max(at, len(data) - len(value) + 1)
    while (at := data.find(value[:1], at)) >= 0:
        if value.startswith(data[at:]):
            return len(data) - at
        at += 1
    return 0
