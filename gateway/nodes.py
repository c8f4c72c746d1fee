"""The nodes that workspaces are on: which there are, which of them answer, and who gets the next.

Which node a workspace is on its record says; here is only what can be asked again. Where
`COVE_GATEWAY__NODES` names none there is one, which is not watched.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Final, Self

from cove.gateway.v1 import gateway_pb2 as pb
from cove.registry.v1.registry_pb2 import Environment, EnvironmentSpec
from gateway.config import Config
from gateway.errors import NodeUnavailable
from gateway.node import Node
from gateway.reach import Reach
from servicekit import calls
from servicekit.channel import Peer
from servicekit.errors import Unavailable

_log = logging.getLogger(__name__)

_EVERY: Final = 1.0
"""Seconds between two questions to a node."""
_ROUNDS: Final = 10
"""After so many rounds of questions a node that never answered counts as gone, too."""
_RESOLVE: Final = 5.0
"""Seconds between two questions to DNS."""
_HANDFUL: Final = 1.0
"""So many more workspaces for each processor a node may have than the one with the fewest, and
still get the next of a repository that it has already."""
_REMEMBERED: Final = 10_000
_DNS: Final = "dns:"


class Nodes:
    """All that this gateway knows of."""

    def __init__(self, config: Config, reach: Reach) -> None:
        self._config = config
        self._reach = reach
        self._nodes: dict[str, Node] = {}
        self._had: OrderedDict[tuple[str, str], str] = OrderedDict()
        """On which node a tenant's workspaces of a repository were made last."""
        self._known: set[str] = set()
        """Names of those that have answered ever."""
        self.rounds = 0
        """Of questions to all."""
        self.changed = asyncio.Event()
        """Set when a node has come or gone; who looks clears it."""
        self._there: frozenset[str] = frozenset()

    @classmethod
    @asynccontextmanager
    async def open(cls, config: Config, reach: Reach) -> AsyncIterator[Self]:
        """They need not be up yet."""
        nodes = cls(config, reach)
        watching: list[asyncio.Task[None]] = []
        try:
            if config.nodes:
                await nodes._resolve()
                watching = [asyncio.create_task(nodes._watch())]
            else:
                await nodes._add("")
            yield nodes
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            for node in [*nodes._nodes.values()]:
                await node.closing.aclose()

    @property
    def several(self) -> bool:
        """Whether there may be more than one, so that each workspace has its own."""
        return bool(self._config.nodes)

    def here(self) -> Node:
        """That of the environment which the current call is about. Raises NodeUnavailable."""
        if not self.several:
            return self._nodes[""]
        return self.named(calls.current().node)

    def named(self, name: str) -> Node:
        """Raises NodeUnavailable unless it answered lately."""
        if not self.several:
            return self._nodes[""]
        for node in self._nodes.values():
            if node.name == name and node.there:
                return node
        raise NodeUnavailable("its node does not answer", node=name)

    def answering(self) -> list[Node]:
        """Those that are there; where there is one only, that."""
        if not self.several:
            return [*self._nodes.values()]
        return [node for node in self._nodes.values() if node.there]

    def told(self) -> list[pb.NodeStatus]:
        """How each is, by name; none where there is one only."""
        return [
            pb.NodeStatus(
                name=each.name,
                answers=each.there,
                drivers=[driver.driver for driver in each.drivers],
                workspaces=each.environments,
            )
            for each in sorted(self._nodes.values(), key=lambda each: each.name)
            if self.several
        ]

    def key(self, environment: Environment) -> str:
        """By which what is on its node is told from what is on others."""
        return environment.node if self.several else ""

    def silent(self, name: str) -> bool:
        """Whether the node of this name does not answer now."""
        return self.several and name not in {each.name for each in self.answering()}

    def gone(self, name: str) -> bool:
        """Whether it has not answered for so long that it counts as lost. One that never answered
        does while others answer: who hears nobody at all has lost its own way to them."""
        sure = name in self._known or (self.rounds >= _ROUNDS and bool(self.answering()))
        return bool(name) and self.silent(name) and sure

    @contextmanager
    def at(self, node: Node) -> Iterator[None]:
        """Calls in the block are made there."""
        with calls.detached(node=node.name):
            yield

    @contextmanager
    def anywhere(self) -> Iterator[None]:
        """Calls in the block are made at one that answers. Raises Unavailable when none does."""
        there = self.answering()
        if not there:
            raise Unavailable("no node answers", service="nodes")
        with self.at(there[0]):
            yield

    def place(self, spec: EnvironmentSpec, *, without: Collection[str] = ()) -> str:
        """The name of the node for a new workspace; empty where there is one only.

        Those that can, and have the repository already, unless others have far less to do; then
        the one with the fewest workspaces. Raises Unavailable when none answers. Where none can,
        one that cannot is named, as it tells best why.
        """
        if not self.several:
            return ""
        there = [each for each in self.answering() if each.name not in without]
        if not there:
            raise Unavailable("no node answers", service="nodes")
        able = [each for each in there if each.can(spec)] or there
        least = min(able, key=lambda each: each.load)
        key = calls.current().identity.tenant, spec.repository
        chosen = next((each for each in able if each.name == self._had.get(key)), least)
        if chosen.load > least.load + _HANDFUL:
            chosen = least
        chosen.placed.append(time.monotonic())
        self._had[key] = chosen.name
        self._had.move_to_end(key)
        if len(self._had) > _REMEMBERED:
            self._had.popitem(last=False)
        return chosen.name

    async def _watch(self) -> None:
        """Ask them all, for ever: nobody would notice that nobody asks."""
        resolved = time.monotonic()
        while True:
            begun = time.monotonic()
            try:
                resolved = await self._round(resolved)
            except Exception:
                _log.exception("the nodes cannot be asked")
            await asyncio.sleep(max(0.0, begun + _EVERY - time.monotonic()))

    async def _round(self, resolved: float) -> float:
        """Look them up if it is time, and ask each; when they were looked up last."""
        if time.monotonic() - resolved > _RESOLVE:
            await self._resolve()
            resolved = time.monotonic()
        asked = [*self._nodes.values()]
        await asyncio.gather(*(each.ask() for each in asked))
        self._known.update(each.name for each in asked if each.heard)
        self.rounds += 1
        there = frozenset(each.name for each in self.answering())
        if there != self._there:
            _log.info("nodes that answer: %s", ", ".join(sorted(there)) or "none")
            self._there = there
            self.changed.set()
        return resolved

    async def _resolve(self) -> None:
        """Take up the nodes that there are now, and give up those that are no more."""
        hosts: list[str] = []
        for each in self._config.nodes:
            hosts += await _addresses(each) if each.startswith(_DNS) else [each]
        for host in hosts:
            if host not in self._nodes:
                await self._add(host)
        for host in [host for host in self._nodes if host not in hosts]:
            if not self._nodes[host].there:
                await self._nodes.pop(host).closing.aclose()

    async def _add(self, host: str) -> None:
        async with AsyncExitStack() as stack:

            async def peer(tool: str, *, narrow: bool = False) -> Peer:
                return await stack.enter_async_context(self._reach.to(tool, host, narrow=narrow))

            self._nodes[host] = Node(
                host=host,
                git=await peer("git"),
                provider=await peer("provider"),
                executor=await peer("executor"),
                ports=await peer("executor", narrow=True),
                closing=stack.pop_all(),
            )


def on_node_of(environment: Environment) -> None:
    """The current call is about this environment, from now on."""
    calls.about(environment.uid, environment.node)


async def _addresses(name: str) -> list[str]:
    """What DNS has of a name; nothing while it does not answer."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name.removeprefix(_DNS), None)
    except (OSError, UnicodeError) as error:
        _log.warning("the nodes cannot be looked up: %s", error)
        return []
    hosts = sorted({str(each[4][0]) for each in found})
    return [f"[{host}]" if ":" in host else host for host in hosts]
