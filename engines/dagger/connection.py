"""What the SDK's query builder stands on: one HTTP connection pool to one session process.

The SDK's own connection is not used. It hands objects of `httpx` to a library that prefers
`httpx2` where that is installed, and then cannot connect at all; and it sends a command that may
have run up to five times more. This one sends each query once. The names of the SDK that it needs
are private: a contract test holds them.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, Final

import dagger
import gql
import graphql
import httpx
from dagger.client._session import BaseConnection
from gql.transport.exceptions import TransportQueryError

from engines.dagger.errors import DaggerFailure, EngineDefect, EngineLost, failure

TRACE: Final[ContextVar[str]] = ContextVar("trace", default="")
"""Trace id, 32 hexadecimal digits, under which the engine files what a command writes."""
_SPAN: Final = "00000000c07e0001"


class Connection(BaseConnection):
    """A session's API, as `dagger.Client.from_connection` takes it."""

    def __init__(self, port: int, token: str, calls: int) -> None:
        self.session = self  # type: ignore[assignment]  # All that the SDK asks a session is below.
        self._schema: graphql.GraphQLSchema | None = None
        self._http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            auth=(token, ""),
            timeout=httpx.Timeout(None, connect=5.0),
            limits=httpx.Limits(max_connections=calls + 8),
            trust_env=False,
        )

    async def introspect(self) -> None:
        """Learn the schema, which every query is built by. Raises EngineLost."""
        with telling():
            found = await self.execute(gql.GraphQLRequest(graphql.get_introspection_query()))
        self._schema = graphql.build_client_schema(found, assume_valid=True)

    async def get_schema(self) -> graphql.GraphQLSchema:
        if self._schema is None:
            raise dagger.ClientConnectionError("no schema yet")
        return self._schema

    async def execute(self, request: gql.GraphQLRequest) -> Any:
        """Send one query once. Raises `dagger.TransportError`, `TransportQueryError`."""
        trace = TRACE.get()
        headers = {"traceparent": f"00-{trace}-{_SPAN}-01"} if trace else {}
        try:
            answer = await self._http.post("/query", json=request.payload, headers=headers)
            content = answer.json() if answer.status_code == httpx.codes.OK else {}
        except (httpx.HTTPError, ValueError) as error:
            raise dagger.TransportError(f"the session broke off: {error}") from error
        if not isinstance(content, dict) or not ("data" in content or "errors" in content):
            raise dagger.TransportError(f"status {answer.status_code}: {answer.text[:300]}")
        if errors := content.get("errors"):
            raise TransportQueryError(str(errors[0].get("message")), errors=errors)
        return content["data"]

    @asynccontextmanager
    async def lines(self, path: str) -> AsyncIterator[AsyncIterator[str]]:
        """What the engine goes on saying at `path`, line by line. Raises EngineLost."""
        headers = {"accept": "text/event-stream"}
        try:
            async with self._http.stream("GET", path, headers=headers) as answer:
                answer.raise_for_status()
                yield answer.aiter_lines()
        except httpx.HTTPError as error:
            raise EngineLost("the session broke off") from error

    async def close(self) -> None:
        await self._http.aclose()


@contextmanager
def telling() -> Any:
    """Raise what the SDK's failures mean."""
    try:
        yield
    except DaggerFailure:
        raise
    except dagger.QueryError as error:
        raise failure(error.error.message, error.error.extensions) from error
    except TransportQueryError as error:
        raise failure(str(error)) from error
    except dagger.InvalidQueryError as error:
        raise EngineDefect(f"query not understood: {error}") from error
    except dagger.DaggerError as error:
        raise EngineLost(str(error)[:300]) from error
