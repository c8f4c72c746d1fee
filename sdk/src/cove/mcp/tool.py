"""What a tool is: a function of a client and checked arguments."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import mcp_types
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from cove import status
from cove.client import Client
from cove.mcp.remotes import Remotes
from cove.workspaces import OnProgress


class Arguments(BaseModel):
    """What a tool is called with. Its documentation is the tool's, for a model to read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


A = TypeVar("A", bound=Arguments)


@dataclass(frozen=True, slots=True)
class Call:
    """What a tool may use besides its arguments."""

    cove: Client
    remotes: Remotes
    on_progress: OnProgress | None = None
    """Set when the caller wants to know how far it is."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool returns."""

    text: str
    data: BaseModel | None = None
    """The same for programs, by the tool's schema."""

    contents: Sequence[str] = ()
    """Contents, each a block of its own, exactly as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool(Generic[A]):
    """One tool, and what clients are told of it."""

    name: str
    title: str
    arguments: type[A]
    run: Callable[[Call, A], Awaitable[Answer]]
    answer: type[BaseModel] | None = None
    """What the answer's data is."""

    reads: bool = False
    """It changes nothing."""

    destroys: bool = False
    """What it replaces or removes may be lost."""

    repeats: bool = False
    """A second call with the same arguments changes nothing more."""

    reaches_out: bool = False
    """It talks to a remote repository."""

    @property
    def description(self) -> str:
        return " ".join((self.arguments.__doc__ or "").split())

    @property
    def told(self) -> mcp_types.Tool:
        """As clients are told of it."""
        return mcp_types.Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=_schema(self.arguments),
            output_schema=_schema(self.answer) if self.answer else None,
            annotations=mcp_types.ToolAnnotations(
                read_only_hint=self.reads,
                destructive_hint=self.destroys,
                idempotent_hint=self.reads or self.repeats,
                open_world_hint=self.reaches_out,
            ),
        )

    async def call(self, call: Call, given: dict[str, Any]) -> Answer:
        """Run it. Raises `CoveError`."""
        return await self.run(call, self._checked(given))

    def _checked(self, given: dict[str, Any]) -> A:
        try:
            return self.arguments.model_validate(given)
        except ValidationError as error:
            raise status.InvalidArgument(
                "the arguments do not fit the tool's schema",
                reason="ERROR_REASON_INVALID_FIELD",
                fields=tuple(
                    status.Violation(".".join(map(str, each["loc"])), each["msg"])
                    for each in error.errors(include_url=False, include_input=False)
                ),
                remedy=f"Correct these fields, then call {self.name} again.",
            ) from None


class _Untitled(GenerateJsonSchema):
    """A title for each field says nothing that its name does not."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - its name.
        return False


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    made = model.model_json_schema(schema_generator=_Untitled)
    return {key: value for key, value in made.items() if key not in ("title", "description")}
