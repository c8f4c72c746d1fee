"""How the web console is served; what it does is tested in tests/console."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from cove_server.console import folder as built
from cove_server.errors import CannotStart
from gateway.rest.app import RestConfig, rest
from servicekit.config import ConfigError
from tests.rest.conftest import Front
from tests.rest.raw import connected, head
from tests.rest.stand_in import Bearer

INDEX = "<!doctype html><title>Cove</title>"
SCRIPT = "console.log('hello');"
SECRET = "not-for-anybody"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A console, with what is no part of it beside and in it."""
    made = tmp_path / "made"
    (made / "assets").mkdir(parents=True)
    (made / "index.html").write_text(INDEX)
    (made / "assets" / "index-a1b2.js").write_text(SCRIPT)
    (made / ".env").write_text(SECRET)
    (made / "notes.md").write_text(SECRET)
    (tmp_path / "secret.js").write_text(SECRET)
    return made


@pytest.fixture
async def client(front: Front, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """It has no token."""
    config = RestConfig(target=front.target, console=folder)
    async with (
        rest(config) as address,
        httpx.AsyncClient(
            base_url=f"http://{address}", headers={"accept-encoding": ""}, timeout=30
        ) as made,
    ):
        yield made


async def test_the_page_is_nobodys_but_its_own(client: httpx.AsyncClient) -> None:
    answer = await client.get("/console/")
    assert (answer.status_code, answer.text) == (200, INDEX)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    policy = dict(
        each.split(" ", 1) for each in answer.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in answer.headers["content-security-policy"]


async def test_what_has_a_digest_in_its_name_is_kept_for_ever(client: httpx.AsyncClient) -> None:
    answer = await client.get("/console/assets/index-a1b2.js")
    assert (answer.status_code, answer.text) == (200, SCRIPT)
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "immutable" in answer.headers["cache-control"]
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [("gzip, br", True), ("br;q=1, gzip;q=0.5", True), ("gzip;q=0", False), ("br", False)],
)
async def test_it_is_packed_for_who_takes_that(
    client: httpx.AsyncClient, accepted: str, packed: bool
) -> None:
    path = "/console/assets/index-a1b2.js"
    async with client.stream("GET", path, headers={"accept-encoding": accepted}) as answer:
        body = b"".join([part async for part in answer.aiter_raw()])
    assert ("content-encoding" in answer.headers) == packed
    assert (gzip.decompress(body) if packed else body) == SCRIPT.encode()
    assert int(answer.headers["content-length"]) == len(body)


async def test_a_head_has_no_body_and_other_methods_are_refused(client: httpx.AsyncClient) -> None:
    answer = await client.head("/console/")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(INDEX))
    refused = await client.post("/console/")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    moved = await client.get("/console")
    assert (moved.status_code, moved.headers["location"]) == (308, "console/")


async def test_only_the_page_needs_no_token(front: Front, folder: Path) -> None:
    config = RestConfig(target=front.target, console=folder)
    async with (
        rest(config, Bearer()) as address,
        httpx.AsyncClient(base_url=f"http://{address}", timeout=30) as client,
    ):
        assert (await client.get("/console/")).status_code == 200
        for path in ("/workspaces", "/openapi.json", "/workspaces/demo/executions/x/output"):
            assert (await client.get(path)).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/console/../secret.js",
        "/console/assets/../../secret.js",
        "/console/%2e%2e/secret.js",
        "/console/..%2fsecret.js",
        "/console/%2e%2e%2fsecret.js",
        "/console/..%5csecret.js",
        "/console/..\\secret.js",
        "/console//../secret.js",
        "/console/./index.html",
        "/console//index.html",
        "/console/index.html%00.js",
        "/console/assets",
        "/console/assets/",
        "/console/.env",
        "/console/notes.md",
        "/console/%69ndex.html",
        "/console/....//secret.js",
        "/console/etc/passwd",
        "/console//etc/passwd",
        "/console/file:///etc/passwd",
        "/consoleindex.html",
        "/console/" + "../" * 40 + "etc/passwd",
        "/console/" + "a" * 8000,
    ],
)
async def test_no_path_leads_elsewhere(client: httpx.AsyncClient, path: str) -> None:
    address = f"{client.base_url.host}:{client.base_url.port}"
    async with connected(address) as (reader, writer):
        writer.write(head("GET", path, "Connection: close"))
        answer = await reader.read()
    assert answer.split(b" ", 2)[1] in (b"404", b"400")
    assert SECRET.encode() not in answer


async def test_a_link_to_elsewhere_is_followed_only_at_the_start(
    front: Front, folder: Path, tmp_path: Path
) -> None:
    """Files are read once: what changes in the folder afterwards is not served."""
    config = RestConfig(target=front.target, console=folder)
    async with rest(config) as address, httpx.AsyncClient(timeout=30) as client:
        (folder / "late.js").symlink_to(tmp_path / "secret.js")
        assert (await client.get(f"http://{address}/console/late.js")).status_code == 404


async def test_without_the_setting_there_is_none(front: Front) -> None:
    for path in ("/console", "/console/", "/console/index.html"):
        answer = await front.client.get(path)
        assert answer.status_code == 404
        assert "ROUTE_NOT_FOUND" in answer.text


async def test_a_folder_without_a_console_is_told(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError, match="make console"):
            async with rest(RestConfig(target="unix:/x", console=folder)):
                pass


def test_what_was_not_built_is_told_before_anything_starts(folder: Path, tmp_path: Path) -> None:
    assert built({}, [tmp_path / "missing", folder]) == folder
    with pytest.raises(CannotStart, match="not built") as caught:
        built({}, [tmp_path / "missing", tmp_path])
    assert "make console" in caught.value.remedy
    assert built({"COVE_GATEWAY__CONSOLE": "/elsewhere"}, [folder]) == Path("/elsewhere")
