"""Calls: every object of the API is one, and says nothing until it is evaluated."""

import asyncio
import base64
import contextvars
import hashlib
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.drivers.dagger_double.values import EngineError

TRACE: contextvars.ContextVar[str] = contextvars.ContextVar("trace", default="")

PERSISTABLE = {
    *("from", "withExec", "withNewFile", "withFile", "withFiles", "withDirectory"),
    *("withoutDirectory", "withoutFile", "withoutFiles", "withSymlink", "asTarball"),
    *("withoutSecretVariable", "withoutEnvVariable"),
}
"""Fields whose results the engine keeps when the session that asked for them is over."""


@dataclass(frozen=True, eq=False)
class Call:
    """A field of an object, with arguments. Others of the same digest are the same."""

    kind: str
    """The type of what it gives."""
    digest: str
    owner: str
    """The type whose field it is."""
    name: str
    parent: "Call | None"
    arguments: Mapping[str, Any]


@dataclass
class Session:
    """What one client process has at the engine."""

    token: str
    number: str = field(default_factory=lambda: uuid.uuid4().hex)
    secrets: dict[str, str] = field(default_factory=dict)
    listeners: list[Callable[[dict[str, Any]], None]] = field(default_factory=list)


class _Job:
    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self.task = task
        self.waiting = 0


Evaluate = Callable[[Call, Session], Awaitable[Any]]


class Table:
    """Names of results, the results, and what is on its way to be one."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._named: dict[int, tuple[Call, str]] = {}
        self._last = 0
        self.results: dict[str, Any] = {}
        self._jobs: dict[str, _Job] = {}

    def call(
        self,
        kind: str,
        owner: str,
        name: str,
        parent: Call | None,
        arguments: Mapping[str, Any],
        *,
        unlike: str = "",
    ) -> Call:
        """`unlike`: what else tells it from others, as whose host is meant."""
        plain = {
            key: [each.digest if isinstance(each, Call) else each for each in value]
            if isinstance(value, list)
            else value.digest
            if isinstance(value, Call)
            else value
            for key, value in arguments.items()
        }
        said = json.dumps(
            [parent.digest if parent else "", owner, name, plain, unlike], default=str
        )
        digest = hashlib.sha256(said.encode()).hexdigest()
        return Call(kind, digest, owner, name, parent, arguments)

    def name(self, call: Call, session: Session) -> str:
        """An integer, in the order of asking."""
        self._last += 1
        self._named[self._last] = (call, session.number)
        return base64.b64encode(str(self._last).encode()).decode()

    def named(self, name: str) -> Call:
        """Whoever asks, and whatever that integer stood for before. Raises EngineError."""
        try:
            number = int(base64.b64decode(name, validate=True))
        except ValueError:
            raise EngineError("failed to decode id: not an id") from None
        if number not in self._named:
            raise EngineError(f"missing shared result {number}")
        return self._named[number][0]

    def end(self, session: Session) -> None:
        """The session is over: what only it kept is gone."""
        for number, (call, owner) in list(self._named.items()):
            if owner == session.number and call.name not in PERSISTABLE:
                del self._named[number]

    async def result(self, call: Call, session: Session) -> Any:
        """From the cache, or together with whoever waits for the same already.

        What nobody waits for any more is ended.
        """
        if call.digest in self.results:
            return self.results[call.digest]
        job = self._jobs.get(call.digest)
        if job is None:
            job = _Job(asyncio.ensure_future(self._evaluate(call, session)))
            self._jobs[call.digest] = job
            job.task.add_done_callback(lambda task: self._done(call.digest, task))
        job.waiting += 1
        try:
            return await asyncio.shield(job.task)
        finally:
            job.waiting -= 1
            if not job.waiting and not job.task.done():
                self._jobs.pop(call.digest, None)
                job.task.cancel()
                await asyncio.wait((job.task,))

    def _done(self, digest: str, task: "asyncio.Task[Any]") -> None:
        self._jobs.pop(digest, None)
        if not task.cancelled() and not task.exception():
            self.results[digest] = task.result()

    def kept(self) -> tuple[int, dict[int, tuple[Call, str]], dict[str, Any]]:
        """What a clean stop writes down."""
        named = {number: each for number, each in self._named.items() if _lasts(each[0])}
        return max(named, default=0), named, self.results

    def restore(self, kept: tuple[int, dict[int, tuple[Call, str]], dict[str, Any]]) -> None:
        self._last, self._named, self.results = kept


def _lasts(call: Call) -> bool:
    return call.name in PERSISTABLE
