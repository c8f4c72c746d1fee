"""Regenerate every `*_pb2*` under sdk/src/ from protos/. Commit the result.

The versions of grpcio-tools and mypy-protobuf are pinned low in pyproject.toml on
purpose: a client's grpcio and protobuf may not be older than the generator.

buf.validate is generated too, as `buf/validate/validate_pb2.py` in a namespace
package (no `__init__.py`), which is where every generator puts it: whoever
else brings a copy and is imported first serves both.
"""

import sys
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
    for stale in OUT.rglob("*_pb2*.py*"):
        stale.unlink()
    ours = sorted(PROTOS.rglob("*.proto"))
    for source in ours:
        package = OUT / source.parent.relative_to(PROTOS)
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
        (package.parent / "__init__.py").touch()
    validate = third_party_protos.PROTOVALIDATE / "buf/validate/validate.proto"
    return _protoc(["--python_out", "--grpc_python_out", "--mypy_out", "--mypy_grpc_out"], ours) or (
        _protoc(["--python_out", "--mypy_out"], [validate])
    )


def _protoc(outputs: list[str], sources: list[Path]) -> int:
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
                *(f"{output}={options.get(output, '')}{OUT}" for output in outputs),
                *map(str, sources),
            ]
        )
    )


if __name__ == "__main__":
    sys.exit(main())
