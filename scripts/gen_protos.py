"""Regenerate every `*_pb2*` under sdk/src/ from protos/. Commit the result.

The versions of grpcio-tools and mypy-protobuf are pinned low in pyproject.toml on
purpose: a client's grpcio and protobuf may not be older than the generator.

buf.validate is generated too, as `buf/validate/validate_pb2.py` in a namespace
package (no `__init__.py`), which is where every generator puts it: whoever
else brings a copy and is imported first serves both. Its types are protoc's own,
which carry no comment of the proto.
"""

import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Final

from grpc_tools import protoc

sys.path.insert(0, str(Path(__file__).parent.parent))
from scripts import third_party_protos

ROOT: Final = Path(__file__).parent.parent
PROTOS: Final = ROOT / "protos"
OUT: Final = ROOT / "sdk" / "src"


def main() -> int:
    third_party_protos.main()
    with tempfile.TemporaryDirectory() as folder:
        generated = Path(folder)
        if failed := _generate(generated):
            return failed
        if "--check" in sys.argv[1:]:
            return _compare(_stubs(generated), _stubs(OUT))
        for name in _stubs(OUT).keys() - _stubs(generated).keys():
            (OUT / name).unlink()
        for name, text in _stubs(generated).items():
            (OUT / name).parent.mkdir(parents=True, exist_ok=True)
            (OUT / name).write_bytes(text)
    for source in PROTOS.rglob("*.proto"):
        package = OUT / source.parent.relative_to(PROTOS)
        (package / "__init__.py").touch()
        (package.parent / "__init__.py").touch()
    return 0


def _stubs(folder: Path) -> dict[str, bytes]:
    found = (p for p in folder.rglob("*_pb2*") if p.suffix in {".py", ".pyi"})
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def _compare(new: dict[str, bytes], committed: dict[str, bytes]) -> int:
    stale = sorted(n for n in new.keys() | committed.keys() if new.get(n) != committed.get(n))
    for name in stale:
        print(f"sdk/src/{name} is not what protos/ generates: run `make protos`")
    return 1 if stale else 0


def _generate(out: Path) -> int:
    ours = sorted(PROTOS.rglob("*.proto"))
    validate = third_party_protos.PROTOVALIDATE / "buf/validate/validate.proto"
    stubs = ["--python_out", "--grpc_python_out", "--mypy_out", "--mypy_grpc_out"]
    return _protoc(out, stubs, ours) or _protoc(out, ["--python_out", "--pyi_out"], [validate])


def _protoc(out: Path, outputs: list[str], sources: list[Path]) -> int:
    options = {"--mypy_out": "quiet:", "--mypy_grpc_out": "quiet,only_async:"}
    bin_folder = Path(sys.executable).parent
    return int(
        protoc.main(
            [
                "protoc",
                f"-I{PROTOS}",
                f"-I{third_party_protos.GOOGLEAPIS}",
                f"-I{third_party_protos.PROTOVALIDATE}",
                f"-I{files('grpc_tools') / '_proto'}",
                f"--plugin=protoc-gen-mypy={bin_folder / 'protoc-gen-mypy'}",
                f"--plugin=protoc-gen-mypy_grpc={bin_folder / 'protoc-gen-mypy_grpc'}",
                *(f"{output}={options.get(output, '')}{out}" for output in outputs),
                *map(str, sources),
            ]
        )
    )


if __name__ == "__main__":
    sys.exit(main())
