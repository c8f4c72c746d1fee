"""Where output is not live, what is seen of it meanwhile is marked as that, and counts no byte."""

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from cove import Chunk, Exit, Preview
from tests.drivers.standing import Stage


@pytest.fixture(autouse=True)
def unable(stage: Stage) -> None:
    if "live_output" in stage.can:
        pytest.skip(f"output of {stage.standing.name} is live")


async def test_a_preview_is_there_while_the_command_runs_and_not_after(stage: Stage) -> None:
    async with await stage.create() as workspace:
        execution = await workspace.start(script="echo seen; echo oops >&2; sleep 1000")
        seen = {Chunk.STREAM_STDOUT: b"", Chunk.STREAM_STDERR: b""}
        async for event in execution.output(previews=True):
            assert isinstance(event, Preview), event
            assert event.offset == 0
            seen[event.stream] += event.data
            if all(seen.values()):
                break
        assert seen == {Chunk.STREAM_STDOUT: b"seen\n", Chunk.STREAM_STDERR: b"oops\n"}
        assert [event async for event in execution.output(follow=False)] == []
        lines = _lines(stage, f"{execution.name}/output?follow=true")
        line = await asyncio.to_thread(next, lines)
        assert {"stream", "data", "position"} <= line["preview"].keys()
        await execution.signal(9, "tree")
        (end,) = [event async for event in execution.output(previews=True)]
        assert isinstance(end, Exit)
        assert end.output_bytes == 0


async def test_the_output_at_the_end_is_exact_whatever_was_seen(stage: Stage) -> None:
    async with await stage.create() as workspace:
        script = r"printf 'one\377'; sleep 0.5; printf 'two\n'; exit 3"
        execution = await workspace.start(script=script)
        events = [event async for event in execution.output(previews=True)]
        chunks = [event for event in events if isinstance(event, Chunk)]
        assert b"".join(event.data for event in chunks) == b"one\xfftwo\n"
        assert isinstance(events[-1], Exit)
        assert events[-1].output_bytes == 8
        assert not isinstance(events[-2], Preview)


def _lines(stage: Stage, path: str) -> Iterator[dict[str, Any]]:
    assert stage.suite.token_file
    token = stage.suite.token_file.read_text().strip()
    headers = {"authorization": f"Bearer {token}", "accept": "application/x-ndjson"}
    request = urllib.request.Request(f"http://{stage.suite.http}/{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        for line in answer:
            yield json.loads(line)
