"""Lay the third-party protos that ours import under .build/, from pinned packages.

No third-party text is kept in git. google/{api,rpc} comes with the installed
`googleapis-common-protos`; buf/validate/validate.proto is only in the source
distribution of protovalidate 1.2.0, which is downloaded once and checked. The
descriptor.proto of grpcio-tools is for a protoc that is older than our protos' options.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
BUILD: Final = ROOT / ".build" / "protos"
GOOGLEAPIS: Final = BUILD / "googleapis"
PROTOVALIDATE: Final = BUILD / "protovalidate"
PROTOBUF: Final = BUILD / "protobuf"

_GOOGLE: Final = (
    "google/api/annotations.proto",
    "google/api/http.proto",
    "google/rpc/code.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
)
_DESCRIPTOR: Final = "google/protobuf/descriptor.proto"
_VALIDATE: Final = "buf/validate/validate.proto"
_SDIST: Final = "protovalidate==1.2.0"
_SHA256: Final = "817951eab518442950f1982be24b2c3154b214b40e42f49b915cbf5181e6ee80"


def main() -> int:
    _lay_google()
    _lay_descriptor()
    _lay_validate()
    return 0


def _lay_google() -> None:
    for name in _GOOGLE:
        target = GOOGLEAPIS / name
        target.parent.mkdir(parents=True, exist_ok=True)
        package, _, file = name.rpartition("/")
        target.write_bytes(files(package.replace("/", ".")).joinpath(file).read_bytes())


def _lay_descriptor() -> None:
    target = PROTOBUF / _DESCRIPTOR
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(files("grpc_tools").joinpath("_proto", _DESCRIPTOR).read_bytes())


def _lay_validate() -> None:
    target = PROTOVALIDATE / _VALIDATE
    if target.exists() and _digest(target.read_bytes()) == _SHA256:
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--no-binary=protovalidate", f"--dest={folder}", _SDIST),
            ],
            check=True,
        )
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            member = next(m for m in tar.getmembers() if m.name.endswith(f"/proto/{_VALIDATE}"))
            extracted = tar.extractfile(member)
            assert extracted is not None
            text = extracted.read()
    if _digest(text) != _SHA256:
        raise SystemExit(f"{_VALIDATE} of {_SDIST} is not the one that was pinned")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(text)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
