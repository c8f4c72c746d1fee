"""A client as a careful caller is one: it repeats with the same request id, and keeps a journal."""

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from cove import status
from cove.client import Client
from cove.connection import Connection
from cove.endpoint import Endpoint
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import WorkspaceServiceStub
from cove.result import Result
from cove.workspace import Workspace
from tests.chaos.journal import Ended, Fate, Held, Journal

T = TypeVar("T")

MOST: Final = 2
"""Workspaces that a client has at a time."""
PATIENCE: Final = 5.0
ANSWER: Final = 240.0
"""Seconds in which whoever insists has an answer."""
RUN: Final = """\
printf '\\n%s\\n' {mark} >> ran || exit 9
sleep {pause}
i=0
while [ $i -lt {lines} ]; do echo "{mark} $i" || exit 8; i=$((i + 1)); done
exit {code}
"""
"""Exits with 8 or 9 where the disk is full; half a line of `ran` is no mark."""
NO_ROOM: Final = (8, 9)

_PAUSE: Final = 0.2
_COMES_TO_PASS: Final = (
    status.Unavailable,
    status.Aborted,
    status.DeadlineExceeded,
    status.ResourceExhausted,
)


class Unanswered(Exception):
    """Nobody told what became of it."""


class Shared:
    """Ids that all clients want: no two may have one at a time."""

    def __init__(self, names: list[str]) -> None:
        self.holders: dict[str, str] = dict.fromkeys(names, "")


class Customer:
    """One of many. All that it decides comes from `dice`."""

    def __init__(
        self, name: str, address: str, token: str, origins: list[str], shared: Shared, seed: str
    ) -> None:
        self.journal = Journal(name)
        self._dice = random.Random(seed)
        self._origins = ["", *origins]
        self._shared = shared
        self._client = Client(address, token, patience=PATIENCE)
        self._connection = Connection(Endpoint(address=address, token=token), PATIENCE)
        self._stub = WorkspaceServiceStub(self._connection.channel)
        self._made = 0

    async def live(self, leave: asyncio.Event) -> None:
        """One step after the other until told to leave; then the step under way is ended."""
        try:
            while not leave.is_set():
                try:
                    await self._step()
                except Unanswered as error:
                    self._surprised(f"no answer, {error}")
        finally:
            await self._client.close()
            await self._connection.channel.close()

    async def _step(self) -> None:
        alive = self.journal.alive()
        if not alive or (len(alive) < MOST and self._dice.random() < 0.2):
            await self._create()
            return
        held = self._dice.choice(alive)
        steps = [self._run, self._write, self._commit, self._fork, self._delete, self._contest]
        (step,) = self._dice.choices(steps, weights=[8, 2, 3, 1.5, 1.5, 0.7])
        await step(held)

    async def _create(self) -> None:
        held = self._new()
        origin, request = self._dice.choice(self._origins), self._request()

        async def create() -> Workspace:
            return await self._client.workspaces.create(origin, id=held.id, request_id=request)

        await self._made_or_gone(held, create, Held(held.id))

    async def _fork(self, source: Held) -> None:
        if len(self.journal.alive()) >= MOST:
            return
        held, request = self._new(), self._request()
        held.marks |= source.marks

        async def fork() -> Workspace:
            return await self._workspace(source).fork(held.id, request_id=request)

        await self._made_or_gone(held, fork, source)

    async def _made_or_gone(
        self, held: Held, make: Callable[[], Awaitable[Workspace]], source: Held
    ) -> None:
        if self._leaves():
            await self._left(make)
            return
        try:
            made = await self._insist(make, f"create {held.id}")
        except status.Aborted:
            held.fate = Fate.GONE
            return
        held.fate, held.uid = Fate.THERE, made.message.uid
        held.files, held.commits = dict(source.files), list(source.commits)
        held.ran = set(source.ran)
        self.journal.told += 1

    async def _run(self, held: Held) -> None:
        await asyncio.gather(*(self._run_one(held) for _ in range(self._dice.choice((1, 1, 1, 3)))))

    async def _run_one(self, held: Held) -> None:
        mark = f"x-{self._request()}"
        lines, code = self._dice.choice((1, 20, 3000)), self._dice.randrange(5)
        pause = self._dice.choice((0, 0, 0.3, 1.5))
        script = RUN.format(mark=mark, lines=lines, code=code, pause=pause)
        held.asked.add(mark)
        held.marks.add(mark)

        async def run() -> Result:
            return await self._workspace(held).execute(script=script, id=mark)

        if self._leaves():
            await self._left(run)
            return
        result = await self._insist(run, f"execute {mark} in {held.id}")
        end = result.execution.exit
        reason = str(end.WhichOneof("reason"))
        whole = not result.truncated
        held.ended[mark] = Ended(reason, end.code, result.stdout, result.stderr, whole)
        self.journal.told += 1
        if reason != "code" or end.code in NO_ROOM:
            return
        held.ran.add(mark)
        wanted = b"".join(b"%s %d\n" % (mark.encode(), each) for each in range(lines))
        if end.code != code or (not result.truncated and result.stdout != wanted):
            self._surprised(f"{held.id} {mark}: {end.code} for {code}, {len(result.stdout)} bytes")

    async def _write(self, held: Held) -> None:
        path, data = (
            f"f{self._dice.randrange(4)}",
            self._dice.randbytes(self._dice.choice((9, 9000))),
        )
        held.files.pop(path, None)
        workspace = self._workspace(held)
        await self._insist(lambda: workspace.write(path, data), f"write {held.id}")
        held.files[path] = data
        self.journal.told += 1

    async def _commit(self, held: Held) -> None:
        await self._write(held)
        workspace, request = self._workspace(held), self._request()

        async def commit() -> pb.CreateCommitResponse:
            return await workspace.commit(f"One of {self.journal.name}", request_id=request)

        answer = await self._insist(commit, f"commit {held.id}")
        held.commits.append((answer.commit.id, dict(held.files)))
        self.journal.told += 1

    async def _delete(self, held: Held) -> None:
        request = pb.DeleteWorkspaceRequest(
            name=f"workspaces/{held.id}",
            force=self._dice.random() < 0.6,
            request_id=self._request(),
        )

        async def delete() -> pb.DeleteWorkspaceResponse:
            return await self._connection.unary(self._stub.DeleteWorkspace, request)

        held.fate = Fate.UNSURE
        if self._leaves():
            await self._left(delete)
            return
        answer = await self._insist(delete, f"delete {held.id}")
        held.ended.clear()  # What is kept is the work.
        held.fate = Fate.KEPT if answer.HasField("workspace") else Fate.GONE
        self.journal.told += 1
        if held.fate is Fate.KEPT and self._dice.random() < 0.4:
            await self._undelete(held)

    async def _undelete(self, held: Held) -> None:
        request = pb.UndeleteWorkspaceRequest(
            name=f"workspaces/{held.id}", request_id=self._request()
        )
        held.fate = Fate.UNSURE

        async def undelete() -> pb.UndeleteWorkspaceResponse:
            return await self._connection.unary(self._stub.UndeleteWorkspace, request)

        await self._insist(undelete, f"undelete {held.id}")
        held.fate = Fate.THERE
        self.journal.told += 1

    async def _contest(self, _: Held) -> None:
        """Take an id that others want, too, and give it back."""
        free = [name for name, holder in self._shared.holders.items() if holder != "?"]
        if not free:
            return
        name, request = self._dice.choice(free), self._request()
        try:
            made = await self._insist(
                lambda: self._client.workspaces.create(id=name, request_id=request),
                f"create {name}",
            )
        except (status.AlreadyExists, status.Aborted):
            return
        except Unanswered:
            self._shared.holders[name] = "?"
            raise
        other, self._shared.holders[name] = self._shared.holders[name], self.journal.name
        if other not in ("", "?"):
            self._surprised(f"{name} was {other}'s when {self.journal.name} was given it")
        self._shared.holders[name] = ""  # It may be gone before we hear of it.
        delete = pb.DeleteWorkspaceRequest(name=made.name, force=True, request_id=self._request())
        await self._insist(
            lambda: self._connection.unary(self._stub.DeleteWorkspace, delete), f"delete {name}"
        )

    async def _insist(self, call: Callable[[], Awaitable[T]], what: str) -> T:
        """Ask until there is an answer. Raises `Unanswered`, and the refusals that are answers."""
        until = time.monotonic() + ANSWER
        while True:
            try:
                return await call()
            except _COMES_TO_PASS as error:
                if error.reason == "ERROR_REASON_CREATE_FAILED":
                    raise
                if time.monotonic() > until:
                    raise Unanswered(f"{what}: {_told(error)}") from None
                await asyncio.sleep(error.retry_after or _PAUSE)
            except status.AlreadyExists as error:
                if what.rpartition(" ")[2] not in self._shared.holders:
                    self._surprised(f"{what}: {_told(error)}")
                    raise Unanswered(what) from None
                raise
            except status.CoveError as error:
                self._surprised(f"{what}: {_told(error)}")
                raise Unanswered(what) from None

    async def _left(self, call: Callable[[], Awaitable[object]]) -> None:
        """Ask once, and be gone before the answer, or soon after it."""
        try:
            async with asyncio.timeout(self._dice.choice((0.01, 0.1, 0.5, 2))):
                await call()
        except (TimeoutError, status.CoveError):
            return

    def _leaves(self) -> bool:
        return self._dice.random() < 0.08

    def _new(self) -> Held:
        self._made += 1
        held = Held(f"{self.journal.name}-{self._made}")
        self.journal.held.append(held)
        return held

    def _workspace(self, held: Held) -> Workspace:
        return self._client.workspaces.named(held.id)

    def _request(self) -> str:
        return str(uuid.UUID(int=self._dice.getrandbits(128), version=4))

    def _surprised(self, what: str) -> None:
        self.journal.surprises.append(what)


def _told(error: status.CoveError) -> str:
    return f"{type(error).__name__} {error.reason} {error} {dict(error.metadata)}"
