"""An image with a Python of its own: the agent uses nothing of it, and commands do."""

import pytest

from tests.docker.images import DEBIAN
from tests.docker.stage import Stage, new_uid

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]


async def test_commands_find_what_is_in_the_image(stage: Stage, debian: str) -> None:
    uid = new_uid()
    box = await stage.active(stage.layers(uid), uid=uid, image=DEBIAN)
    assert stage.docker.inspect(uid)["Image"] == debian
    script = "import os, sys; print(os.getuid(), sys.prefix, open('d/f').read().strip())"
    assert await stage.said(box, f'python3 -c "{script}"') == "60900 /usr lower\n"
    users = await stage.said(box, "getent passwd root cove | cut -d: -f1,3")
    assert users == "root:0\ncove:60900\n"
    agent = await stage.said(box, "tr '\\0' ' ' < /proc/1/cmdline")
    assert agent.startswith("/.cove/lib/python/loader ")
    await stage.release(box)


async def test_a_digest_names_an_image_too(stage: Stage, debian: str) -> None:
    box = await stage.active(image=debian)
    assert "bookworm" in await stage.said(box, "cat /etc/os-release")
    await stage.release(box)
