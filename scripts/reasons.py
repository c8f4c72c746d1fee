"""Why calls fail: what errors.proto, the kinds of failures and the remedies say of each reason."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import grpc
from google.rpc import error_details_pb2, status_pb2

import gateway
import servicekit
import services
from cove.errors.v1.errors_pb2 import ErrorReason
from gateway.rest.errors import code_of
from servicekit.errors import ServiceError
from servicekit.remedies import REMEDIES
from servicekit.status import CODES, DOMAIN

ROOT: Final = Path(__file__).parent.parent
PROTOS: Final = ROOT / "protos" / "cove"
PROTO: Final = PROTOS / "errors" / "v1" / "errors.proto"
PREFIX: Final = "ERROR_REASON_"

BEHIND: Final = frozenset(
    {
        *("ENVIRONMENT_NOT_FOUND", "ENVIRONMENT_EXISTS", "TRANSITION_FORBIDDEN"),
        *("WORKTREE_NOT_FOUND", "WORKTREE_EXISTS", "WORKTREE_IN_USE", "UNSAVED_WORK"),
        *("COMMITS_MISSING", "COMMITS_INVALID", "NOT_PROVISIONED", "PROVISIONED_DIFFERENTLY"),
        *("ENVIRONMENT_STOPPED", "ENVIRONMENT_DORMANT", "HANDLE_INVALID"),
    }
)
"""What services tell the gateway only, which tells its callers something else, or asks again."""

_NO, _YES, _READ, _LATER, _ONCE = "no", "yes", "after a read", "later", "once"
_AGAIN: Final = {
    "ABORTED": _READ,
    "DEADLINE_EXCEEDED": _YES,
    "INTERNAL": _ONCE,
    "RESOURCE_EXHAUSTED": _LATER,
    "UNAVAILABLE": _YES,
}
_AGAIN_OF: Final = {
    **dict.fromkeys(("ARCHIVE_TOO_LARGE", "MESSAGE_TOO_LARGE"), _NO),
    **dict.fromkeys(("REPOSITORY_TOO_LARGE", "WORKTREE_TOO_LARGE"), _NO),
    **dict.fromkeys(("CREATE_FAILED", "HEADS_DIVERGED"), _NO),
    **dict.fromkeys(("OPERATION_IN_PROGRESS", "PORT_RESET", "UPLOAD_INCOMPLETE"), _YES),
    **dict.fromkeys(("ENVIRONMENT_DORMANT", "EXECUTION_RUNNING", "INPUT_HELD"), _LATER),
    **dict.fromkeys(("WORKSPACE_BUSY", "WORKSPACE_NOT_READY", "WORKTREE_IN_USE"), _LATER),
    "LEASE_LOST": _READ,
    "WATCHER_TOO_SLOW": _YES,
}
"""Where the code alone does not say it."""

_VALUE: Final = re.compile(rf"{PREFIX}(\w+) = (\d+)( \[deprecated = true\])?;")
_METADATA: Final = re.compile(r"\s*Metadata(?: at times)?:\s")
_KEY: Final = re.compile(r"`([a-z][a-z0-9_]*)`")
_SAID: Final = re.compile(rf"\* (?P<where>[A-Z_]+|in an answer), {PREFIX}(?P<reason>\w+):")


@dataclass(frozen=True, kw_only=True)
class Reason:
    """All that is known of one."""

    name: str
    """Without the prefix."""
    number: int
    cause: str
    """When it is told."""
    metadata: str
    """The comment's words about it."""
    always: tuple[str, ...]
    """Keys of the metadata that every failure with it has."""
    maybe: tuple[str, ...]
    """Keys that some have."""
    codes: tuple[str, ...]
    """Of gRPC; empty: it is no failure of a call."""
    reserved: bool
    """Whether it is sent no more."""
    answered: bool
    """Whether it is told in an answer: as why a workspace is FAILED."""

    @property
    def remedy(self) -> str:
        return REMEDIES.get(self.name, "")

    @property
    def http(self) -> tuple[int, ...]:
        """The statuses of HTTP, in the order of the codes."""
        return tuple(http_of(code, self.name) for code in self.codes)

    @property
    def told(self) -> str:
        """How: codes of gRPC and HTTP, or where else."""
        if self.reserved:
            return "sent no more"
        if self.name == "UNSPECIFIED":
            return "never sent"
        if self.answered:
            return "in `failure`"
        both = zip(self.codes, self.http, strict=True)
        told = ", ".join(f"{code} {number}" for code, number in both)
        return f"{told}, behind" if self.name in BEHIND else told

    @property
    def again(self) -> str:
        """Whether the same call may succeed as it is."""
        if not self.http or self.name == "UNSPECIFIED":
            return ""
        return _AGAIN_OF.get(self.name) or _AGAIN.get(self.codes[0], _NO)


def reasons() -> dict[str, Reason]:
    """Each reason by its name, in the order of errors.proto."""
    codes, said = codes_of_classes(), said_by_gateway()
    found: dict[str, Reason] = {}
    comment: list[str] = []
    for line in map(str.strip, PROTO.read_text().splitlines()):
        if line.startswith("//"):
            comment.append(line.removeprefix("//").strip())
            continue
        if value := _VALUE.fullmatch(line):
            name = value[1]
            cause, metadata, always, maybe = _parts(" ".join(comment))
            found[name] = Reason(
                name=name,
                number=int(value[2]),
                cause=cause,
                metadata=metadata,
                always=always,
                maybe=maybe,
                codes=tuple(sorted(codes.get(name, ()))),
                reserved=bool(value[3]),
                answered="in an answer" in said.get(name, ()),
            )
        comment = []
    return found


def _parts(comment: str) -> tuple[str, str, tuple[str, ...], tuple[str, ...]]:
    """Cause, words about metadata, keys that are always there, and those that may be."""
    first = _METADATA.search(comment)
    if not first:
        return comment, "", (), ()
    cause, rest = comment[: first.start()], comment[first.start() :]
    keys: dict[bool, tuple[str, ...]] = {True: (), False: ()}
    words: list[str] = []
    starts = [*_METADATA.finditer(rest)]
    for here, after in zip(starts, [*starts[1:], None], strict=True):
        text = rest[here.end() : after.start() if after else len(rest)].strip()
        maybe = "at times" in here[0]
        keys[maybe] += tuple(_KEY.findall(text))
        words.append(("at times " if maybe else "") + text.removesuffix("."))
    return cause, "; ".join(words), keys[False], keys[True]


def http_of(code: str, name: str) -> int:
    """How HTTP says a code with that reason, of a request without If-Match."""
    status = status_pb2.Status(code=grpc.StatusCode[code].value[0])
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=PREFIX + name, domain=DOMAIN))
    return HTTPStatus(code_of(status, conditional=False)).value


def cause_of(comment: str) -> str:
    """What a reason's comment says of when it is told, without its metadata."""
    return _METADATA.split(comment)[0]


def classes() -> Iterator[type[ServiceError]]:
    """Every kind of failure of every part, base classes too."""
    for package in (gateway, services, servicekit):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    left: list[type[ServiceError]] = [ServiceError]
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        yield kind


def code_of_class(kind: type[ServiceError]) -> str:
    """The code of gRPC that a kind of failure has; empty: none of its own."""
    return next((CODES[each].name for each in kind.__mro__ if each in CODES), "")


def codes_of_classes() -> dict[str, set[str]]:
    """The codes that each reason comes with."""
    found: dict[str, set[str]] = {"INTERNAL": {"INTERNAL"}}
    for kind in classes():
        if kind.__module__.split(".")[0] in ("gateway", "services", "servicekit") and (
            code := code_of_class(kind)
        ):
            name = ErrorReason.Name(kind.reason).removeprefix(PREFIX)
            found.setdefault(name, set()).add(code)
    return found


def said_by_gateway() -> dict[str, set[str]]:
    """The codes with which comments of the gateway's RPCs name each reason."""
    found: dict[str, set[str]] = {}
    for path in (PROTOS / "gateway").rglob("*.proto"):
        for match in _SAID.finditer(path.read_text()):
            found.setdefault(match["reason"], set()).add(match["where"])
    return found
