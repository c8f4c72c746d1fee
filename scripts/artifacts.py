"""Write what others build clients from into .build/artifacts; docs/artifacts.md says what each is.

The same checkout makes the same bytes, on any machine: names are sorted, dates are none, and
archives are not compressed, as what that makes differs between versions of zlib.
"""

import argparse
import hashlib
import shutil
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from typing import Final

from grpc_tools import protoc

sys.path.insert(0, str(Path(__file__).parent.parent))
from scripts import third_party_protos
from scripts.gen_openapi import document_text

ROOT: Final = Path(__file__).parent.parent
OUT: Final = ROOT / ".build" / "artifacts"
PROTOS: Final = ROOT / "protos"
WELL_KNOWN: Final = "google/protobuf"
SUMS: Final = "SHA256SUMS"

_LICENSES: Final = ("googleapis-common-protos", "protobuf", "protovalidate")
_NEVER: Final = (1980, 1, 1, 0, 0, 0)
_BUF: Final = """\
version: v2
modules:
  - path: cove
  - path: googleapis
    lint: {ignore: [googleapis]}
    breaking: {ignore: [googleapis]}
  - path: protovalidate
    lint: {ignore: [protovalidate]}
    breaking: {ignore: [protovalidate]}
lint:
  use: [STANDARD, COMMENTS]
breaking:
  use: [FILE]
"""

Contents = Mapping[str, bytes]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="make artifacts", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args(arguments).out
    third_party_protos.main()
    ours = _protos(PROTOS)
    google = _protos(third_party_protos.GOOGLEAPIS)
    validate = _protos(third_party_protos.PROTOVALIDATE)
    about = _about()
    made = {
        "cove-protos.zip": _zip(ours | google | validate | _well_known() | about),
        "cove-buf.zip": _zip(
            _below("cove", ours)
            | _below("googleapis", google)
            | _below("protovalidate", validate)
            | {"buf.yaml": _BUF.encode()}
            | about
        ),
        "cove.protoset": _descriptors(sorted(ours), ours | google | validate | _well_known()),
        "openapi.json": document_text().encode(),
    }
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name, content in made.items():
        (out / name).write_bytes(content)
    sums = (f"{hashlib.sha256(made[name]).hexdigest()}  {name}\n" for name in sorted(made))
    (out / SUMS).write_text("".join(sums))
    for name, content in sorted(made.items()):
        print(f"{out / name}  {len(content):,} bytes")
    return 0


def _protos(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.proto")}


def _well_known() -> dict[str, bytes]:
    """Those that every compiler should bring along, and not every one does."""
    found = files("grpc_tools").joinpath("_proto", *WELL_KNOWN.split("/")).iterdir()
    every = {each.name: each.read_bytes() for each in found if each.name.endswith(".proto")}
    # Features of single languages are their compilers' own.
    return {
        f"{WELL_KNOWN}/{name}": text
        for name, text in every.items()
        if not name.endswith("_features.proto")
    }


def _about() -> dict[str, bytes]:
    """The version, and the licences of what is in there."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    found = {"VERSION": f"{version}\n".encode(), "LICENSE": (ROOT / "LICENSE").read_bytes()}
    for name in _LICENSES:
        package = distribution(name)
        (path,) = (each for each in package.files or () if each.name == "LICENSE")
        found[f"licenses/{name}"] = Path(str(package.locate_file(path))).read_bytes()
    return found


def _below(folder: str, contents: Contents) -> dict[str, bytes]:
    return {f"{folder}/{name}": content for name, content in contents.items()}


def _descriptors(names: Iterable[str], contents: Contents) -> bytes:
    """All that is needed of them, comments too."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in contents.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        out = Path(folder, "descriptors")
        options = ("--include_imports", "--include_source_info", f"--descriptor_set_out={out}")
        if protoc.main(["protoc", f"-I{folder}", *options, *names]):
            raise SystemExit("protos/ cannot be compiled")
        return out.read_bytes()


def _zip(contents: Contents) -> bytes:
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(contents):
                entry = zipfile.ZipInfo(name, _NEVER)
                entry.create_system = 3  # Unix, wherever it is made.
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, contents[name])
        file.seek(0)
        return file.read()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
