"""Who records spans, what becomes of them, and what it costs who wants none."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from prometheus_client import CollectorRegistry

from servicekit import calls, otlp, tracing
from servicekit.config import ConfigError
from servicekit.errors import NotFound
from servicekit.otlp import recording
from servicekit.spans import Kind, Span
from tests.servicekit.kit import SERVICE, KitConfig, Protos, running
from tests.telemetry.collector import collecting

GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_spans_within_a_call_hang_below_it(protos: Protos, tmp_path: Path) -> None:
    async def say(request: Any) -> str:
        with tracing.span("outer", uid="u"):
            calls.about("uid-of-it")
            with tracing.span("inner"):
                return calls.current().traceparent

    async with (
        collecting() as collector,
        running(protos, tmp_path, say=say, traces=collector.url) as kit,
    ):
        answer = await kit.stub.Say(kit.pb.SayRequest(), metadata=(("traceparent", GIVEN),))
        await collector.until(lambda: len(collector.spans) == 3)
    inner, outer, call = (
        next(each for each in collector.spans if each.name == name)
        for name in ("inner", "outer", f"{SERVICE}/Say")
    )
    assert len(collector.spans) == 3
    assert {each.trace for each in collector.spans} == {GIVEN.split("-")[1]}
    assert answer.text == f"00-{inner.trace}-{inner.id}-01"
    assert (inner.parent, outer.parent, call.parent) == (outer.id, call.id, GIVEN.split("-")[2])
    assert outer.attributes["cove.uid"] == "u"
    assert call.attributes["cove.uid"] == "uid-of-it"


async def test_what_a_span_raises_is_told_without_its_words(protos: Protos, tmp_path: Path) -> None:
    async def say(request: Any) -> str:
        with tracing.span("lookup"):
            raise NotFound("no such hunter2", name="hunter2")

    async with (
        collecting(f"unix:{tmp_path}/otlp") as collector,
        running(protos, tmp_path, say=say, traces=collector.url) as kit,
    ):
        with pytest.raises(grpc.aio.AioRpcError):
            await kit.stub.Say(kit.pb.SayRequest(), metadata=(("traceparent", GIVEN),))
        await collector.until(lambda: len(collector.spans) == 2)
    (lookup,) = [each for each in collector.spans if each.name == "lookup"]
    assert (lookup.code, lookup.attributes["error.type"]) == (2, "NotFound")
    assert not [data for data in collector.raw if b"hunter2" in data]


@pytest.mark.parametrize(("ratio", "few", "many"), [(0.0, 0, 0), (0.5, 20, 80), (1.0, 100, 100)])
async def test_the_ratio_is_of_calls_that_come_without_a_trace(
    protos: Protos, tmp_path: Path, ratio: float, few: int, many: int
) -> None:
    async with (
        collecting() as collector,
        running(protos, tmp_path, traces=collector.url, traces_ratio=ratio) as kit,
    ):
        for _ in range(100):
            await kit.stub.Say(kit.pb.SayRequest())
        # What is left when it stops is sent then.
    assert few <= len(collector.spans) <= many
    assert len({each.trace for each in collector.spans}) == len(collector.spans)


async def test_no_call_waits_for_a_collector_that_is_away(
    protos: Protos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no collector has is counted, and no more than a bounded number waits."""
    monkeypatch.setattr(otlp, "_LINGER", 3600)  # Nothing is given up while this looks.
    admin = f"unix:{tmp_path}/admin"
    transport = httpx.AsyncHTTPTransport(uds=f"{tmp_path}/admin")
    async with collecting() as gone:
        url = gone.url
    async with (
        running(protos, tmp_path, traces=url, admin_address=admin) as kit,
        httpx.AsyncClient(transport=transport, base_url="http://admin", timeout=30) as http,
    ):
        for _ in range(20):
            await kit.stub.Say(kit.pb.SayRequest())
        lines = (await http.get("/metrics")).text.splitlines()
    assert "cove_spans_sent_total 0.0" in lines
    assert "cove_spans_dropped_total 0.0" in lines  # They wait still: nothing was given up.


@pytest.mark.parametrize(
    "url", ["127.0.0.1:4317", "ftp://a:1", "http://user:secret@a:1", "http://a:1/v1/traces"]
)
async def test_a_collector_is_named_by_a_plain_url(
    protos: Protos, tmp_path: Path, url: str
) -> None:
    with pytest.raises(ConfigError, match="COVE_TRACES: not http"):
        async with running(protos, tmp_path, traces=url):
            pass


_WITHOUT = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Nothing())
import runpy
runpy.run_module("services.registry", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("wanted", [False, True])
async def test_without_the_extra_a_service_starts_unless_it_is_to_trace(
    tmp_path: Path, wanted: bool
) -> None:
    env = {"COVE_STATE": f"{tmp_path}/s", "COVE_RUNTIME": f"{tmp_path}/r", "PATH": "/usr/bin"}
    env |= {"COVE_TRACES": "http://127.0.0.1:1"} if wanted else {}
    process = subprocess.Popen(
        [sys.executable, "-c", _WITHOUT],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        served = bool(process.stdout.readline())
        process.terminate()
        errors = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert served is not wanted
    assert ("pip install 'cove-server[otel]'" in errors) is wanted


async def test_a_stop_in_the_midst_of_many_spans_sends_them_and_ends(tmp_path: Path) -> None:
    """What cancels the sender comes just when it has enough to send."""
    span = Span("busy", Kind.INTERNAL, GIVEN, "", 1, 2, {})
    async with asyncio.timeout(30), collecting() as collector:
        config = KitConfig(state=tmp_path, runtime=tmp_path, traces=collector.url)
        async with recording(config, CollectorRegistry()) as recorder:
            assert recorder
            recorder.record(span)
            for _ in range(5):
                await asyncio.sleep(0)  # It waits for more now.
            for _ in range(600):
                recorder.record(span)
        assert len(collector.spans) == 601
