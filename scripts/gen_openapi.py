"""Write gateway/rest/openapi.json, the OpenAPI document that the gateway serves.

It is made of the descriptors that the routes are made of, the comments of the
protos, and their limits. `--check` writes nothing and fails when the file is not
up to date.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent))
from cove.gateway.v1 import gateway_pb2
from gateway.rest.archives import PACK, UNPACK
from gateway.rest.document import FILE
from gateway.rest.files import READ, WRITE
from gateway.rest.input import STREAM
from gateway.rest.routes import Routes
from gateway.rest.terminal import ATTACH
from scripts.openapi import comments, parts, raw
from scripts.openapi.comments import in_json_names
from scripts.openapi.failures import Failures
from scripts.openapi.operations import Operations
from scripts.openapi.paths import path_of
from scripts.openapi.schemas import Schemas

ROOT: Final = Path(__file__).parent.parent


def main(arguments: list[str]) -> int:
    text = document_text()
    if FILE.exists() and FILE.read_text() == text:
        return 0
    if "--check" in arguments:
        print(f"{FILE.relative_to(ROOT)} is not what protos/ says: run `make protos`")
        return 1
    FILE.write_text(text)
    return 0


def document_text() -> str:
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def document() -> dict[str, Any]:
    services = sorted(gateway_pb2.DESCRIPTOR.services_by_name.values(), key=lambda each: each.index)
    said = comments.read()
    schemas = Schemas(said, [rpc for service in services for rpc in service.methods])
    operations = Operations(schemas, Failures(said))
    special = {
        READ: raw.reading,
        WRITE: raw.writing,
        PACK: raw.packing,
        UNPACK: raw.unpacking,
        STREAM: raw.streaming,
        ATTACH: raw.attaching,
    }
    paths: dict[str, Any] = {}
    for route in sorted(
        Routes.of(services),
        key=lambda each: (each.rpc.containing_service.index, each.rpc.index, each.binding),
    ):
        build = special.get(route.rpc.full_name)
        operation = build(operations, route) if build else operations.of(route)
        paths.setdefault(path_of(route), {})[route.http_method.lower()] = operation
    tags = [
        {"name": service.name, "description": in_json_names(said[service.full_name])}
        for service in services
    ]
    return {
        "openapi": "3.1.0",
        "info": parts.INFO,
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": [*tags, parts.TAG],
        "paths": paths | parts.fixed_paths(),
        "components": {
            "schemas": dict(sorted((schemas.components | parts.failure_schemas()).items())),
            "responses": operations.shared(),
            "parameters": parts.PARAMETERS,
            "headers": parts.RESPONSE_HEADERS,
            "securitySchemes": parts.SECURITY_SCHEMES,
        },
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
