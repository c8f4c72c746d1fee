"""What the comment of an RPC says of its failures, by the status code of HTTP."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2, status_pb2

from cove.errors.v1.errors_pb2 import ErrorReason
from gateway.rest.errors import code_of
from gateway.tools import OWN_REASONS
from scripts.openapi.comments import in_json_names
from scripts.openapi.limits import Schema
from scripts.reasons import cause_of
from servicekit.status import DOMAIN

_LINE: Final = re.compile(r"\* (?P<code>[A-Z_]+), (?P<reason>ERROR_REASON_\w+): (?P<cause>.*)")
_SAME: Final = re.compile(r"Fails as the RPC of this name in (?P<package>cove\.[\w.]+) does.*")
_REASONS: Final = "cove.errors.v1.ErrorReason"
# What the gateway answers for by itself: it starts a sandbox that is dormant.
_HIDDEN: Final = frozenset(
    ErrorReason.Name(reason)
    for reason in (*OWN_REASONS, ErrorReason.ERROR_REASON_ENVIRONMENT_DORMANT)
)

STATUS: Final[Schema] = {"$ref": "#/components/schemas/Status"}
HEADERS: Final[Mapping[int, Mapping[str, str]]] = {
    401: {"WWW-Authenticate": "Authenticate"},
    416: {"Content-Range": "ContentRange"},
    429: {"Retry-After": "RetryAfter"},
    503: {"Retry-After": "RetryAfter"},
}


@dataclass(frozen=True, slots=True)
class Failure:
    """`cause` may be empty: then the reason says it all."""

    code: str
    reason: str
    cause: str

    def http(self, *, conditional: bool) -> int:
        code = grpc.StatusCode[self.code].value[0]
        status = status_pb2.Status(code=code)
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN))
        return code_of(status, conditional=conditional)


class Failures:
    """`general` are those that no comment names, as every RPC has them."""

    def __init__(self, comments: Mapping[str, str]) -> None:
        self._comments = comments

    def prose(self, rpc: MethodDescriptor) -> str:
        """The comment of an RPC without its failures."""
        lines = self._comments[rpc.full_name].splitlines()
        kept = [line for line in lines if not _LINE.fullmatch(line)]
        return _SAME.sub("", "\n".join(kept)).strip()

    def of(self, rpc: MethodDescriptor) -> list[Failure]:
        """Those that an RPC names, and those of the RPC behind it."""
        return [each for each in self._named(rpc) if each.reason not in _HIDDEN]

    def general(self, code: str, reason: str) -> Failure:
        name = f"ERROR_REASON_{reason}"
        return Failure(code, name, cause_of(self._comments[f"{_REASONS}.{name}"]))

    def _named(self, rpc: MethodDescriptor) -> Iterator[Failure]:
        for line in self._comments[rpc.full_name].splitlines():
            if found := _LINE.fullmatch(line):
                yield Failure(found["code"], found["reason"], in_json_names(found["cause"]))
            elif (same := _SAME.search(line)) and (behind := _behind(rpc, same["package"])):
                yield from self._named(behind)


def _behind(rpc: MethodDescriptor, package: str) -> MethodDescriptor | None:
    word = package.split(".")[1]
    file = descriptor_pool.Default().FindFileByName(f"cove/{word}/v1/{word}.proto")
    for service in file.services_by_name.values():
        if rpc.name in service.methods_by_name:
            return service.methods_by_name[rpc.name]
    return None


def responses(failures: list[Failure], *, conditional: bool) -> dict[int, Any]:
    """`conditional`: If-Match may be given, and then a lost race is a 412."""
    by_code: dict[int, list[Failure]] = {}
    for failure in failures:
        codes = {failure.http(conditional=False), failure.http(conditional=conditional)}
        for code in codes:
            known = by_code.setdefault(code, [])
            if failure.reason not in [each.reason for each in known]:
                known.append(failure)
    return {code: failed(code, each) for code, each in sorted(by_code.items())}


def failed(code: int, failures: list[Failure]) -> Schema:
    lines = [f"- {each.code}, `{each.reason}`: {each.cause}" for each in failures]
    return {
        "description": "\n".join(lines),
        "headers": headers(HEADERS.get(code, {})),
        "content": {"application/json": {"schema": STATUS}},
    }


def headers(names: Mapping[str, str]) -> Schema:
    """`names` of components, by the names of HTTP. Every answer has the correlation id."""
    given = {"X-Request-Id": "RequestId", **names}
    return {name: {"$ref": f"#/components/headers/{of}"} for name, of in given.items()}
