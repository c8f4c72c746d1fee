"""What others build clients from stands alone, works with their tools, and is made alike twice."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from cove.gateway.v1 import gateway_pb2
from gateway.rest.document import FILE as OPENAPI
from tests.support.suite import Suite, running_suite

ROOT: Final = Path(__file__).parent.parent.parent
PROTOS: Final = ROOT / "protos"
OURS: Final = sorted(str(each.relative_to(PROTOS)) for each in PROTOS.rglob("*.proto"))
NO_NETWORK: Final = dict.fromkeys(
    ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"
)
BARE_PROTOC: Final = "import sys; from grpc_tools import protoc; sys.exit(protoc.main(sys.argv))"
"""It brings no protos along, as `python -m grpc_tools.protoc` does."""


def make(out: Path, **env: str) -> Path:
    subprocess.run(
        [sys.executable, "scripts/artifacts.py", "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, **env},
        check=True,
        capture_output=True,
    )
    return out


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("made") / "artifacts")


def unpacked(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    return folder


def run(*argv: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        argv, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_sums_are_right(artifacts: Path) -> None:
    lines = (artifacts / "SHA256SUMS").read_text().splitlines()
    told = {line.split("  ")[1]: line.split("  ")[0] for line in lines}
    assert told.keys() == {each.name for each in artifacts.iterdir()} - {"SHA256SUMS"}
    for name, digest in told.items():
        assert hashlib.sha256((artifacts / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("compiler", ["of the tests", "protoc"])
def test_the_bundle_compiles_alone(artifacts: Path, tmp_path: Path, compiler: str) -> None:
    argv = [sys.executable, "-c", BARE_PROTOC, "--python_out=out"]
    if compiler == "protoc":
        argv = ["protoc", "--python_out=out", "--cpp_out=out", "--java_out=out"]
    if not shutil.which(argv[0]):
        pytest.skip("no protoc: install Debian's package protobuf-compiler")
    folder = unpacked(artifacts / "cove-protos.zip", tmp_path)
    (folder / "out").mkdir()
    run(*argv, "-I.", "--include_imports", "--descriptor_set_out=set", *OURS, cwd=folder)
    compiled = FileDescriptorSet.FromString((folder / "set").read_bytes())
    assert {*OURS} <= {each.name for each in compiled.file}
    assert (folder / "out/cove/gateway/v1/gateway_pb2.py").exists()


def test_the_bundle_has_ours_word_for_word_and_licences(artifacts: Path, tmp_path: Path) -> None:
    folder = unpacked(artifacts / "cove-protos.zip", tmp_path)
    for name in OURS:
        assert (folder / name).read_bytes() == (PROTOS / name).read_bytes()
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    for each in (folder / "licenses").iterdir():
        assert "icense" in each.read_text() or "Redistribution" in each.read_text()
    # What it imports, and nothing of anybody else's beside that.
    others = {str(each.relative_to(folder).parent) for each in folder.rglob("*.proto")}
    assert {each for each in others if not each.startswith("cove/")} == {
        *("buf/validate", "google/api", "google/protobuf", "google/rpc"),
    }


def test_the_layout_is_one_that_buf_takes_without_network(artifacts: Path, tmp_path: Path) -> None:
    folder = unpacked(artifacts / "cove-buf.zip", tmp_path / "layout")
    buf = str(Path(sys.executable).with_name("buf"))
    env = {"BUF_CACHE_DIR": str(tmp_path / "cache"), **NO_NETWORK}
    run(buf, "lint", cwd=folder, **env)
    run(buf, "build", "-o", str(tmp_path / "image.binpb"), cwd=folder, **env)
    built = FileDescriptorSet.FromString((tmp_path / "image.binpb").read_bytes())
    assert {*OURS} <= {each.name for each in built.file}


def test_the_descriptors_have_all_that_they_import_and_the_comments(artifacts: Path) -> None:
    told = FileDescriptorSet.FromString((artifacts / "cove.protoset").read_bytes())
    by_name = {each.name: each for each in told.file}
    assert {*OURS} <= by_name.keys()
    for file in told.file:
        assert {*file.dependency} <= by_name.keys()
    ours = by_name[gateway_pb2.DESCRIPTOR.name]
    served = gateway_pb2.DESCRIPTOR.services_by_name
    assert {each.name: len(each.method) for each in ours.service} == {
        name: len(service.methods) for name, service in served.items()
    }
    commented = {tuple(at.path) for at in ours.source_code_info.location if at.leading_comments}
    for index, service in enumerate(ours.service):
        assert all((6, index, 2, number) in commented for number in range(len(service.method)))


def test_the_document_is_what_the_gateway_serves(artifacts: Path) -> None:
    assert (artifacts / "openapi.json").read_bytes() == OPENAPI.read_bytes()


@pytest.mark.long
def test_it_is_made_alike_twice(artifacts: Path, tmp_path: Path) -> None:
    """Elsewhere, by another clock, in another order of sets."""
    odd = {"TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "7", "LC_ALL": "C"}
    again = make(tmp_path / "again", **odd)
    assert {each.name: each.read_bytes() for each in again.iterdir()} == {
        each.name: each.read_bytes() for each in artifacts.iterdir()
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> Any:
    async with running_suite(tmp_path_factory.mktemp("suite")) as running:
        yield running


@pytest.mark.asyncio(loop_scope="module")
async def test_grpcurl_needs_nothing_but_the_descriptors(artifacts: Path, suite: Suite) -> None:
    """Not even reflection, which grpcurl does not ask for where it has a file."""
    grpcurl = (str(Path(sys.executable).with_name("grpcurl")), "-protoset", "cove.protoset")
    said = run(*grpcurl, "describe", "cove.gateway.v1.WorkspaceService", cwd=artifacts)
    assert "rpc CreateWorkspace" in said
    assert "/workspaces" in said  # Where it is over HTTP: what transcoders go by.
    called = (*grpcurl, "-plaintext", "-H", f"authorization: Bearer {suite.token}")
    spec = json.dumps({"workspace_id": "set", "workspace": {"spec": {}}})
    method = "cove.gateway.v1.WorkspaceService"
    made = run(*called, "-d", spec, suite.grpc, f"{method}/CreateWorkspace", cwd=artifacts)
    # With descriptors of a compiler JSON has its own names, other than by Python's reflection.
    assert json.loads(made)["workspace"]["state"] == "STATE_READY"
    assert "createTime" in made
    run(*called, "-d", '{"name": "workspaces/set"}', suite.grpc, f"{method}/DeleteWorkspace",
        cwd=artifacts)  # fmt: skip
