"""Nothing that callers see is missing from the pages, and no page leads nowhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from cove.gateway.v1 import gateway_pb2
from gateway.rest.routes import Routes
from tests.docs import pages
from tests.docs.pages import ROOT
from tests.support.walking import all_in

SERVICES: Final = gateway_pb2.DESCRIPTOR.services_by_name.values()
RPCS: Final = [f"{service.name}/{rpc.name}" for service in SERVICES for rpc in service.methods]
ROUTES: Final = Routes.of(SERVICES)

_RPC: Final = re.compile(r"\b([A-Z]\w+Service/[A-Z]\w+)")
_PATH: Final = re.compile(r"127\.0\.0\.1:7421(/[^\s'\"?]*)")
_METHOD: Final = re.compile(r"-X (?P<named>[A-Z]+)|(?P<put> -T )|(?P<post> -d )")
_FENCED: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_CODE: Final = re.compile(r"`([^`]+)`")
_FOLDERS: Final = ("agent", "deploy", "docs", "gateway", "protos", "scripts", "sdk", "tests")
_MADE: Final = {".build", ".venv", ".git", ".pytest_cache", "node_modules"}


def called() -> Iterator[tuple[str, str]]:
    """Method and path of each call that the page of HTTP makes."""
    for step in pages.steps(ROOT / "docs" / "rest.md"):
        for line in step.text.replace("\\\n", " ").splitlines():
            if path := _PATH.search(line):
                given = _METHOD.search(f"{line} ")
                method = given["named"] or ("PUT" if given["put"] else "POST") if given else "GET"
                yield method, path[1]


def markdown() -> list[Path]:
    found = [path.relative_to(ROOT) for path in all_in(ROOT) if path.suffix == ".md"]
    return sorted(path for path in found if not _MADE.intersection(path.parts))


def prose(page: Path) -> str:
    return _COMMENT.sub("", _FENCED.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings; and as the site does, where the two are alike."""
    texts = (re.sub(r"[`*]|\]\([^)]*\)|\[", "", each) for each in _HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


@pytest.mark.parametrize("rpc", RPCS)
def test_every_rpc_is_called_on_the_page_of_grpc(rpc: str) -> None:
    steps = pages.steps(ROOT / "docs" / "grpcurl.md")
    assert rpc in {name for step in steps for name in _RPC.findall(step.text)}


def test_the_page_of_grpc_calls_nothing_that_is_not_there() -> None:
    text = (ROOT / "docs" / "grpcurl.md").read_text()
    assert set(_RPC.findall(text)) <= set(RPCS)


@pytest.mark.parametrize(
    "route", [f"{route.http_method} {route.template.text}" for route in ROUTES]
)
def test_every_route_is_called_on_the_page_of_http(route: str) -> None:
    found = [
        ROUTES.find(*each).route for each in called() if each[1] not in ("/healthz", "/readyz")
    ]
    assert route in {f"{each.http_method} {each.template.text}" for each in found}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json"])
def test_what_is_no_rpc_is_on_the_page_of_http(path: str) -> None:
    assert path in prose(ROOT / "docs" / "rest.md")


@pytest.mark.parametrize("page", markdown(), ids=str)
def test_no_link_is_broken(page: Path) -> None:
    for link in _LINK.findall(prose(ROOT / page)):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        where = (ROOT / page.parent / target if target else ROOT / page).resolve()
        assert where.exists(), link
        assert not anchor or anchor in anchors(where), link


@pytest.mark.parametrize("page", markdown(), ids=str)
def test_files_that_are_named_are_there(page: Path) -> None:
    for name in _CODE.findall(prose(ROOT / page)):
        if name.split("/")[0] in _FOLDERS and re.fullmatch(r"[\w./-]+/[\w.-]+\.\w+", name):
            assert (ROOT / name).exists(), name
