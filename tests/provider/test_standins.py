"""What provider asks the stand-in of a driver."""

import asyncio
from pathlib import Path

from agent.standin.server import Server
from services.provider.drivers.dagger.standins import Standins
from services.provider.drivers.making import BUILD
from tests.agent.test_standin import _Runner

MANY = 80
"""More than it has connections."""


async def test_many_that_take_long_keep_nobody_out(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def create(_: dict[str, object]) -> dict[str, object]:
        await go.wait()
        return {"made": True}

    server = Server("double", tmp_path, _Runner(), {"create": create})
    standin = Standins(tmp_path / "double")
    try:
        asked = [asyncio.create_task(standin.ask("create", BUILD)) for _ in range(MANY)]
        short = await asyncio.gather(*(standin.ask("bound") for _ in range(MANY)))
        assert short == [{"uids": []}] * MANY
        assert not any(each.done() for each in asked)
        go.set()
        assert await asyncio.gather(*asked) == [{"made": True}] * MANY
    finally:
        go.set()
        await server.close()
