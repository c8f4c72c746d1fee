"""Files as bytes: what FileService streams as messages is a plain body here."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import grpc

from cove.errors.v1.errors_pb2 import ErrorReason
from gateway.rest.backend import Backend
from gateway.rest.errors import (
    RangeNotSatisfiable,
    invalid,
    metadata_of,
    status_of,
)
from gateway.rest.exchange import Exchange
from gateway.rest.fields import fill, put_path, query_json
from gateway.rest.routes import Match, Route
from gateway.rest.transcode import (
    IF_MATCH,
    IF_NONE_MATCH,
    etag_header,
    is_known,
    one_etag,
    put_key,
    request_of,
    strong_etags,
    to_dict,
)
from gateway.rest.uploads import upload
from servicekit.errors import Aborted, Violation
from servicekit.status import reason

READ: Final = "cove.gateway.v1.FileService.ReadFile"
WRITE: Final = "cove.gateway.v1.FileService.WriteFile"
LIST: Final = "cove.gateway.v1.FileService.ListFiles"

_RANGE: Final = re.compile(r"bytes=\s*(\d{1,18})?-(\d{1,18})?\s*")
_OCTAL: Final = re.compile(r"0[0-7]+")


class FileChanged(Aborted):
    """If-Match names another content than the one that is there."""

    reason = ErrorReason.ERROR_REASON_FILE_CHANGED


@dataclass(frozen=True, slots=True)
class Span:
    """What a Range header asks for. `first` None: the last `last` bytes."""

    first: int | None
    last: int | None


class Files:
    """Answers the routes of READ and WRITE. `listing`: the route of LIST."""

    def __init__(self, backend: Backend, listing: Route) -> None:
        self._backend = backend
        self._listing = listing

    async def read(self, exchange: Exchange, match: Match, token: str) -> None:
        """The content, or the part of it in Range; a directory is listed."""
        request = request_of(match, exchange, b"", conditions=False)
        async with exchange.watched():
            await self._read(exchange, match.route, request, token)

    async def _read(self, exchange: Exchange, route: Route, request: Any, token: str) -> None:
        if not request.raw_path and (not request.path or request.path.endswith("/")):
            request.path = request.path.rstrip("/") or "."
            await self._list(exchange, request, token)
            return
        try:
            await self._send(exchange, route, request, token)
        except grpc.aio.AioRpcError as error:
            if reason(error) != ErrorReason.ERROR_REASON_WRONG_FILE_TYPE or exchange.started:
                raise
            await self._list(exchange, request, token)

    async def write(self, exchange: Exchange, match: Match, token: str) -> None:
        """The body becomes the file, part by part; one that breaks off changes nothing."""
        first = _write_header(match, exchange)
        response = await upload(self._backend, exchange, match.route, first, token)
        await exchange.answer(200, to_dict(response.file), etag_header(response.file))

    async def _send(self, exchange: Exchange, route: Route, request: Any, token: str) -> None:
        span = None if exchange.method == "HEAD" else _span(exchange.headers.get("range", ""))
        etag = ""
        if span and (span.first is None or "if-range" in exchange.headers):
            file = await self._look(route, request, token)
            if exchange.headers.get("if-range", f'"{file.etag}"') != f'"{file.etag}"':
                span = None
            else:
                etag = file.etag
                if span.first is None:
                    span = Span(max(0, file.size - (span.last or 0)), file.size - 1)
        if span:
            assert span.first is not None
            request.offset = span.first
            request.limit = 0 if span.last is None else max(0, span.last - span.first + 1)
        try:
            async with self._backend.stream(route, request, token) as events:
                if await _send_file(exchange, request, span, events, etag):
                    return
            request.offset = request.limit = 0  # It was replaced just now: send all of it.
            async with self._backend.stream(route, request, token) as events:
                await _send_file(exchange, request, None, events)
        except grpc.aio.AioRpcError as error:
            if span and error.code() is grpc.StatusCode.OUT_OF_RANGE:
                size = metadata_of(status_of(error)).get("end", "*")
                raise RangeNotSatisfiable(size) from error
            raise

    async def _look(self, route: Route, request: Any, token: str) -> Any:
        """What the file is. A stat would tell of a link, where a read follows it."""
        head = type(request)(
            name=request.name, path=request.path, raw_path=request.raw_path, limit=1
        )
        async with self._backend.stream(route, head, token) as events:
            return (await anext(events)).file

    async def _list(self, exchange: Exchange, request: Any, token: str) -> None:
        listing = self._listing.request(
            name=request.name, path=request.path, raw_path=request.raw_path
        )
        response = await self._backend.unary(self._listing, listing, token)
        await exchange.answer(200, to_dict(response))


async def _send_file(
    exchange: Exchange,
    request: Any,
    span: Span | None,
    events: AsyncIterator[Any],
    wanted: str = "",
) -> bool:
    """False, and nothing is sent, when it is not the file whose etag is `wanted`."""
    file = (await anext(events)).file
    if wanted and file.etag != wanted:
        return False
    code, headers = 200, etag_header(file)
    _check_if_match(exchange, request.path, file.etag)
    if is_known(exchange, file.etag):
        await exchange.begin(304, headers)
        await exchange.end()
        return True
    if span and request.offset >= file.size:
        raise RangeNotSatisfiable(str(file.size))
    left = max(0, file.size - request.offset)
    if request.limit:
        left = min(left, request.limit)
    if span:
        code = 206
        place = f"bytes {request.offset}-{request.offset + left - 1}/{file.size}"
        headers.append(("content-range", place))
    await exchange.begin(
        code,
        [
            *headers,
            ("content-type", "application/octet-stream"),
            ("content-length", str(left)),
            ("accept-ranges", "bytes"),
        ],
    )
    if exchange.method == "HEAD":
        await exchange.end()
        return True
    async for event in events:
        data = event.data[:left]  # A file that grows meanwhile was promised to be this long.
        left -= len(data)
        if data:
            await exchange.write(data)
    if left == 0:
        await exchange.end()  # Else the connection breaks off, which tells that it was cut.
    return True


def _write_header(match: Match, exchange: Exchange) -> Any:
    """The first message of a WriteFile. Raises `InvalidArgument`."""
    first: Any = match.route.request()
    header = first.header
    header.SetInParent()
    elsewhere = {path.removeprefix("header."): "is in the path" for path in match.values}
    given, violations = query_json(header.DESCRIPTOR, exchange.query, elsewhere)
    if _OCTAL.fullmatch(mode := str(given.get("mode", ""))):
        given["mode"] = int(mode, 8)
    violations += fill(header, given)
    for path, value in match.values.items():
        violations += put_path(first, path, value)
    headers = exchange.headers
    violations += put_key(header, "request_id", headers)
    if IF_MATCH in headers:
        header.etag = one_etag(headers[IF_MATCH])
        if not header.etag:
            violations.append(Violation("If-Match", "not one strong etag"))
    if IF_NONE_MATCH in headers:
        header.must_not_exist = True
        if headers[IF_NONE_MATCH].strip() != "*":
            violations.append(Violation("If-None-Match", "only * is known here"))
    if violations:
        raise invalid(violations)
    return first


def _span(header: str) -> Span | None:
    """None: no range, or one that HTTP has us ignore, as more than one."""
    found = _RANGE.fullmatch(header)
    if not found:
        return None
    first, last = (int(text) if text else None for text in found.groups())
    if (first is None and last is None) or (
        first is not None and last is not None and last < first
    ):
        return None
    return Span(first, last)


def _check_if_match(exchange: Exchange, path: str, etag: str) -> None:
    wanted = exchange.headers.get(IF_MATCH, "*").strip()
    if wanted != "*" and etag not in strong_etags(wanted):
        raise FileChanged("the file is not the one with that etag", path=path, etag=etag)
