"""Path templates, as OpenAPI writes them: a parameter for each segment that varies."""

import re
from collections.abc import Iterator

from gateway.rest.routes import Route
from gateway.rest.template import VARIABLE
from scripts.openapi.limits import Schema, rules_of
from scripts.openapi.schemas import Schemas, Side, field_at


def path_of(route: Route) -> str:
    """For example `/workspaces/{workspace}/executions/{execution}:signal`."""
    return VARIABLE.sub(
        lambda found: "/".join(
            segment if name is None else f"{{{name}}}"
            for segment, name in _named(found["field"], found["segments"] or "*")
        ),
        route.template.text,
    )


def path_parameters(route: Route, schemas: Schemas) -> Iterator[Schema]:
    for found in VARIABLE.finditer(route.template.text):
        segments = found["segments"] or "*"
        field = field_at(route.rpc.input_type, found["field"])
        patterns = _patterns(rules_of(field).string.pattern, segments)
        named = _named(found["field"], segments)
        for (segment, name), pattern in zip(named, patterns, strict=True):
            if segment == "**":
                text = f"{schemas.comment(field.full_name)} Its slashes may be sent as `%2F`."
                schema = schemas.field(field, Side.REQUEST)
                schema.pop("description")
            elif name:
                text = f"Id of the {name}."
                schema = {"type": "string"} | ({"pattern": f"^{pattern}$"} if pattern else {})
            if name:
                yield {
                    "name": name,
                    "in": "path",
                    "required": True,
                    "description": text,
                    "schema": schema,
                }


def _named(field: str, segments: str) -> list[tuple[str, str | None]]:
    """Each segment, and what the parameter that stands for it is called; None: it is literal."""
    named: list[tuple[str, str | None]] = []
    before = field.rpartition(".")[2]
    for segment in segments.split("/"):
        if "*" in segment:
            named.append((segment, before))
        else:
            named.append((segment, None))
            before = segment.removesuffix("s")
    return named


def _patterns(pattern: str, segments: str) -> list[str]:
    """The part of a resource name's pattern that each segment is held to; empty: none is known."""
    whole = re.sub(r"\((/.*)\)\?\$$", r"\1$", pattern)  # What may be left out at its end is there.
    parts = whole.removeprefix("^").removesuffix("$").split("/")
    wanted = segments.split("/")
    if whole != pattern:
        parts = parts[: len(wanted)]
    alike = len(parts) == len(wanted) and all(
        "*" in segment or segment == part for segment, part in zip(wanted, parts, strict=True)
    )
    return parts if alike else [""] * len(wanted)
