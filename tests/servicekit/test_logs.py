"""What is logged, and what is not."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from servicekit import calls, logs, rpc
from servicekit.errors import NotFound
from tests.servicekit.failing import failure
from tests.servicekit.kit import Protos, running


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def restored() -> Iterator[None]:
    """Puts the root logger back: `set_up` is for a whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.usefixtures("restored")
async def test_each_call_is_one_line_without_its_contents(protos: Protos, tmp_path: Path) -> None:
    async def say(request: Any) -> str:
        if request.text == "fail":
            raise NotFound("gone")
        logging.getLogger("demo").warning("working", extra={"fields": {"step": 1}})
        return "a secret"

    out = io.StringIO()
    logs.set_up("kit", "info", out)
    metadata = (
        ("x-request-id", "id-1"),
        ("cove-tenant", "acme"),
        ("cove-principal", "ada"),
        ("authorization", "Bearer secret"),
    )
    async with running(protos, tmp_path, say=say) as kit:
        await kit.stub.Say(kit.pb.SayRequest(text="a secret"), metadata=metadata)
        await failure(kit.stub.Say(kit.pb.SayRequest(text="fail"), metadata=metadata))
    working, good, bad = lines(out)
    assert (working["message"], working["step"], working["level"]) == ("working", 1, "warning")
    assert (good["message"], good["code"]) == ("call", "OK")
    assert "reason" not in good
    assert (bad["code"], bad["method"]) == ("NOT_FOUND", "/cove.kittest.v1.KitService/Say")
    for line in (working, good, bad):
        assert line["request_id"] == "id-1"
        assert len(line["trace_id"]) == 32
        assert line["service"] == "kit"
    assert (good["tenant"], good["principal"]) == ("acme", "ada")
    assert good["ms"] >= 0
    assert "secret" not in out.getvalue()


@pytest.mark.usefixtures("restored")
def test_an_exception_stays_one_line_of_json() -> None:
    out = io.StringIO()
    logs.set_up("kit", "info", out)
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logging.getLogger("demo").exception("failed")
    (line,) = lines(out)
    assert "ValueError: first\nsecond" in line["exception"]


@pytest.mark.usefixtures("restored")
def test_the_level_is_kept_and_a_terminal_gets_text() -> None:
    out = Terminal()
    logs.set_up("kit", "warning", out)
    log = logging.getLogger("demo")
    log.info("not shown")
    with calls.detached(correlation_id="0123456789"):
        log.warning("shown", extra={"fields": {"a": 1}})
    text = out.getvalue()
    assert "not shown" not in text
    assert text.endswith("W kit: shown a=1 [01234567]\n")


@pytest.mark.usefixtures("restored")
def test_who_logs_does_not_fail_of_it() -> None:
    """As with Python's own handlers: libraries log what they like."""
    out = io.StringIO()
    logs.set_up("kit", "info", out)
    logging.getLogger("library").error("%s %s", "one")
    logging.getLogger("library").error("next")
    wrong, following = lines(out)
    assert (wrong["level"], wrong["message"]) == ("error", "a line of the log cannot be written")
    assert wrong["where"].startswith(f"{__file__}:")
    assert "not enough arguments" in wrong["exception"]
    assert following["message"] == "next"


@pytest.mark.usefixtures("restored")
async def test_a_caller_whose_deadline_passes_has_not_just_left(
    protos: Protos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts from when it calls, and so breaks off a moment before the deadline as seen here."""
    monkeypatch.setattr(rpc, "_MOMENT", 30.0)
    began = asyncio.Event()

    async def say(request: Any) -> str:
        began.set()
        await asyncio.Event().wait()
        return ""

    out = io.StringIO()
    logs.set_up("kit", "info", out)
    async with running(protos, tmp_path, say=say) as kit:
        for timeout in (20, 120):
            made = kit.stub.Say(kit.pb.SayRequest(), timeout=timeout)
            waiting = asyncio.ensure_future(failure(made))
            await began.wait()
            made.cancel()
            await asyncio.wait([waiting])
            began.clear()
    assert [line["code"] for line in lines(out)] == ["DEADLINE_EXCEEDED", "CANCELLED"]
