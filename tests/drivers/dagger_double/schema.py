"""The GraphQL schema of the Dagger API, derived from the installed SDK's own source."""

import ast
import functools
import inspect
import re
from collections.abc import Iterator

import graphql

_SCALARS = {"str": "String", "int": "Int", "bool": "Boolean", "float": "Float"}


@functools.cache
def schema() -> graphql.GraphQLSchema:
    return graphql.build_schema(sdl())


def sdl() -> str:
    """In the schema language. Whether arguments may be null is as the SDK's source has it."""
    from dagger.client import gen

    module = ast.parse(inspect.getsource(gen))
    classes = {each.name: each for each in module.body if isinstance(each, ast.ClassDef)}
    derived = _Derived(classes)
    parts = ["interface Node { id: ID! }"]
    return "\n".join([*parts, *(text for name in classes if (text := derived.one(name)))])


class _Derived:
    def __init__(self, classes: dict[str, ast.ClassDef]) -> None:
        self._classes = classes
        self._kinds = {name: _kind(each) for name, each in classes.items()}

    def one(self, name: str) -> str:
        """A type; empty where it is none of the API."""
        found = self._classes[name]
        match self._kinds[name]:
            case "scalar":
                return f"scalar {name}"
            case "enum":
                values = [
                    target.id
                    for each in found.body
                    if isinstance(each, ast.Assign)
                    and isinstance(target := each.targets[0], ast.Name)
                ]
                return f"enum {name} {{ {' '.join(values)} }}"
            case "interface" if name != "Node":
                return f"interface {name} {{ id: ID! }}"
            case "input":
                fields = [
                    f"{_camel(each.target.id)}: {self._type(each.annotation, name, argument=True)}"
                    for each in found.body
                    if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
                ]
                return f"input {name} {{ {' '.join(fields)} }}"
            case "object" if not name.startswith("_") and name != "Client":
                fields_by_name = dict(self._fields(name))
                if name == "Query":
                    fields_by_name["node"] = "node(id: ID!): Node"
                implements = (
                    " implements Node" if "id" in fields_by_name and name != "Query" else ""
                )
                return f"type {name}{implements} {{ {' '.join(fields_by_name.values())} }}"
        return ""

    def _fields(self, name: str) -> Iterator[tuple[str, str]]:
        for each in self._classes[name].body:
            if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if sync := _calls(each, "execute_sync"):
                names = [a.value for a in sync[0].args[1:2] if isinstance(a, ast.Constant)]
                field, returned = str(names[0] if names else "sync"), "ID!"
            elif selected := [
                call
                for call in _calls(each, "_select")
                if call.args and isinstance(call.args[0], ast.Constant)
            ]:
                assert isinstance(selected[0].args[0], ast.Constant)
                field = str(selected[0].args[0].value)
                returned = "ID!" if field == "id" else self._type(each.returns, name)
            else:
                continue
            arguments = ", ".join(self._arguments(each, name))
            yield (
                field,
                f"{field}({arguments}): {returned}" if arguments else f"{field}: {returned}",
            )

    def _arguments(
        self, function: ast.FunctionDef | ast.AsyncFunctionDef, owner: str
    ) -> Iterator[str]:
        every = [*function.args.args, *function.args.kwonlyargs]
        annotations = {each.arg: each.annotation for each in every}
        for call in ast.walk(function):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
                continue
            if call.func.id != "Arg" or not isinstance(call.args[0], ast.Constant):
                continue
            names = (each.id for each in ast.walk(call.args[1]) if isinstance(each, ast.Name))
            name = next((each for each in names if each in annotations), None)
            kind = self._type(annotations[name], owner, argument=True) if name else "String"
            yield f"{call.args[0].value!s}: {kind}"

    def _type(self, annotation: ast.expr | None, owner: str, *, argument: bool = False) -> str:
        text = "None" if annotation is None else ast.unparse(annotation).strip().strip("'\"")
        return self._named(text, owner, argument, required=True)

    def _named(self, text: str, owner: str, argument: bool, *, required: bool) -> str:
        text = text.strip("'\"")
        if text.endswith(" | None"):
            return self._named(text[: -len(" | None")], owner, argument, required=False)
        if found := re.fullmatch(r"list\[(.*)\]", text):
            return f"[{self._named(found[1], owner, argument, required=True)}]" + "!" * required
        text = owner if text == "Self" else text
        kind = self._kinds.get(text)
        if text in ("None", "Void"):
            return "Void"
        if text == "Type" or (kind == "object" and argument):
            return "ID" + "!" * required
        return (_SCALARS.get(text) or (text if kind else "String")) + "!" * required


def _kind(found: ast.ClassDef) -> str:
    bases = {ast.unparse(each) for each in found.bases}
    for base, kind in (
        ("Scalar", "scalar"),
        ("Enum", "enum"),
        ("Input", "input"),
        ("Protocol", "interface"),
        ("Type", "object"),
        ("Root", "object"),
    ):
        if base in bases:
            return kind
    return ""


def _calls(function: ast.AST, attribute: str) -> list[ast.Call]:
    return [
        each
        for each in ast.walk(function)
        if isinstance(each, ast.Call)
        and isinstance(each.func, ast.Attribute)
        and each.func.attr == attribute
    ]


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(each.title() for each in rest)
