"""Arguments that many tools have, and how lists are told."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BeforeValidator, Field

T = TypeVar("T")

ID: Final = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
LONGEST_PATH: Final = 4096
LARGEST: Final = 2**53
"""The largest number that every JSON has."""

WorkspaceId = Annotated[str, Field(pattern=ID, description="Id of the workspace.")]

ExecutionId = Annotated[
    str, Field(pattern=ID, description="Id of the execution, as workspace_exec returned it.")
]

FilePath = Annotated[
    str,
    Field(
        min_length=1,
        max_length=LONGEST_PATH,
        description="Path relative to the root of the workspace.",
    ),
]

Encoding = Annotated[Literal["text", "base64"], Field(description="base64 for binary files.")]


def _of_json(given: Any) -> Any:
    """Some clients send a list or an object as a text that holds it."""
    try:
        return json.loads(given) if isinstance(given, str) else given
    except ValueError:
        return given


Env = Annotated[dict[str, str], Field(max_length=256), BeforeValidator(_of_json)]

Paths = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=LONGEST_PATH)]],
    Field(max_length=1000, description="Only what is at or below these paths; empty: everything."),
    BeforeValidator(_of_json),
]

WaitSeconds = Annotated[
    int,
    Field(
        ge=0,
        le=600,
        description="Return after so many seconds at the latest. Keep it below the time-out that "
        "your client has for a call.",
    ),
]

MaxBytes = Annotated[
    int, Field(ge=1000, le=200_000, description="Return at most so many bytes of content.")
]

Limit = Annotated[int, Field(ge=1, le=1000, description="Return at most so many.")]

Offset = Annotated[
    int, Field(ge=0, le=100_000, description="Leave out so many first ones; 0, or next_offset.")
]


def filter_(example: str) -> Any:
    """The description of a filter with such an example."""
    return Field(
        default="",
        max_length=4096,
        description=f"Only those that this selects, in the syntax of AIP-160, for example "
        f"`{example}`. What is wrong with it is told, with what is allowed.",
    )


async def page(
    items: AsyncGenerator[T, None], offset: int, limit: int
) -> tuple[list[T], int | None]:
    """So many from the offset on, and the offset of the next page if there is one."""
    found: list[T] = []
    at = 0
    async with aclosing(items):
        async for item in items:
            if at >= offset + limit:
                return found, at
            if at >= offset:
                found.append(item)
            at += 1
    return found, None


def listed(rows: Sequence[str], what: str, next_offset: int | None) -> str:
    """A line each, and how to go on."""
    if not rows:
        return f"no {what} here"
    rest = [] if next_offset is None else [f"[more {what}: call again with offset {next_offset}]"]
    return "\n".join([*rows, *rest])
