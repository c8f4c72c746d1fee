"""The contract with the SDK: what of it is used is there, and every query is valid."""

import ast
import asyncio
import contextlib
import inspect
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagger
import gql
import graphql
import pytest
from dagger._engine import _version
from dagger.client import _core, _session, base

import engines.dagger
from engines.dagger.connection import Connection
from engines.dagger.environments import Environments
from engines.dagger.heads import Heads, Record
from engines.dagger.images import Builder
from engines.dagger.pool import Engines
from engines.dagger.settings import Settings
from tests.drivers.dagger_double.schema import schema

ROOT = Path(__file__).parents[2]
SOURCES = sorted(Path(engines.dagger.__file__).parent.glob("*.py"))


class _Answering(Connection):
    """Validates each query, and answers with what its type allows."""

    def __init__(self) -> None:
        super().__init__(1, "token", 1)
        self._schema = schema()
        self.queries: list[str] = []

    async def execute(self, request: gql.GraphQLRequest) -> Any:
        assert graphql.validate(schema(), request.document) == []
        self.queries.append(graphql.print_ast(request.document))
        (operation,) = request.document.definitions
        assert isinstance(operation, graphql.OperationDefinitionNode)
        return _value("", schema().query_type, operation.selection_set)


def _value(name: str, kind: Any, selected: graphql.SelectionSetNode | None) -> Any:
    if isinstance(kind, graphql.GraphQLNonNull):
        kind = kind.of_type
    if isinstance(kind, graphql.GraphQLList):
        return []
    if not (graphql.is_object_type(kind) or graphql.is_interface_type(kind)):
        return {"Int": 0, "Boolean": name != "isEmpty"}.get(kind.name, "1")
    found: dict[str, Any] = {}
    assert selected
    for each in selected.selections:
        if isinstance(each, graphql.InlineFragmentNode):
            assert each.type_condition
            inner = schema().type_map[each.type_condition.name.value]
            found |= _value("", inner, each.selection_set)
        elif isinstance(each, graphql.FieldNode):
            field = kind.fields[each.name.value]
            told = (each.alias or each.name).value
            found[told] = _value(each.name.value, field.type, each.selection_set)
    return found


class _Session:
    def __init__(self, made: _Answering) -> None:
        self.client = dagger.Client.from_connection(made)
        self.previews = None


class _Engines(Engines):
    """Engines whose one session is the answering connection."""

    def __init__(self, settings: Settings, made: _Answering) -> None:
        super().__init__(settings)
        engine = self.default()

        @contextlib.asynccontextmanager
        async def session() -> Any:
            yield _Session(made)

        engine.session = session  # type: ignore[method-assign]


async def test_every_query_that_is_built_is_valid(tmp_path: Path) -> None:
    made = _Answering()
    cli = tmp_path / "dagger"
    cli.write_text("")
    cli.chmod(0o755)
    settings = Settings(
        state=tmp_path / "state",
        runtime=tmp_path,
        node="n",
        engines={"main": "unix:///x"},
        cli=cli,
        generations=2,
    )
    settings.state.mkdir()
    (settings.state / "images").mkdir()
    (settings.state / "images" / "a.tar").touch()
    (settings.state / "images" / "a").mkdir()
    (tmp_path / "tree").mkdir()
    heads = Heads(settings.state / "environments")
    every = Environments(settings, _Engines(settings, made), heads)
    tree = str(tmp_path / "tree")
    for number, image in enumerate(("some/image", "tar:a.tar", "rootfs:a")):
        await every.create("abc"[number] * 16, "t", image, ("true",), tree)
    head = every.heads.head("a" * 16)
    assert head
    # What the answers say is not true: that nothing was opened by them is another test.
    every._proofs.verify = _nothing  # type: ignore[assignment,method-assign]  # noqa: SLF001
    for dirty in (True, False):
        each = replace(head, dirty=dirty, layers=1)
        run = await every.run(each, ["true"], (("NAME", "value"),))
        async with every.scratch() as folder:
            await run.wait(folder)
    await every.run(replace(head, layers=9), ["true"])
    assert await every.has_program(head, "sh", "/bin:/usr/bin", "/workspace")
    record = Record(uid="d" * 16, tenant="t", image="", digest="", setup=(), tree=tree, made=1.0)
    await every.fork(head, record)
    await every.snapshot(head, tmp_path / "snapshot.tar")
    await every.export("some/image", ("true",), tmp_path / "image.tar", docker=True)
    client = dagger.Client.from_connection(made)
    await Builder(client, tmp_path).resolve("some/image")
    with contextlib.suppress(Exception):
        await client.version()
    asked = "\n".join(made.queries)
    for field in ("withExec", "changes", "withSecretVariable", "asTarball", "import", "from"):
        assert f" {field}" in asked, field
    assert "experimentalPrivilegedNesting" not in asked
    assert "insecureRootCapabilities" not in asked
    await made.close()


async def _nothing(*_: Any) -> None:
    return None


async def test_the_real_schema_check_finds_a_query_that_is_not_valid() -> None:
    document = graphql.parse('{ container { withExec(argv: ["true"]) { id } } }')
    assert graphql.validate(schema(), document)


def test_private_names_of_the_sdk_are_there() -> None:
    assert inspect.isclass(_session.BaseConnection)
    assert list(inspect.signature(_core.Context.select_id).parameters)[1:] == [
        "type_name",
        "id_value",
    ]
    assert "conn" in inspect.signature(base.Root.from_connection).parameters
    asked = set(re.findall(r"conn\.session\.(\w+)", inspect.getsource(_core)))
    assert asked == {"get_schema", "execute"}
    assert all(hasattr(Connection, each) for each in asked)


def test_the_sdk_neither_connects_nor_retries_nor_takes_our_telemetry() -> None:
    names = {
        node.attr
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert not names & {
        "initialize",
        "SingleConnection",
        "SharedConnection",
        "Retry",
        "connection",
    } - {"connection"}
    text = "".join(path.read_text() for path in SOURCES)
    assert "telemetry.initialize" not in text
    assert "dagger.connection(" not in text
    assert "tenacity" not in text


async def test_a_query_is_sent_once_and_with_whatever_client_of_http_is_installed() -> None:
    """Where httpx2 is there, too, the SDK's own connection fails; ours is made of httpx."""
    seen = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        made = Connection(server.sockets[0].getsockname()[1], "token", 1)
        with pytest.raises(dagger.TransportError):
            await made.execute(gql.gql("{ version }"))
        await made.close()
    assert len(seen) == 1
    assert seen[0].startswith(b"POST /query ")
    assert type(made._http).__module__.partition(".")[0] == "httpx"  # noqa: SLF001


def test_versions_of_cli_and_engine_are_that_of_the_sdk() -> None:
    """They are given in one place each, and change together."""
    version = _version.CLI_VERSION
    for name in ("deploy/dagger/Dockerfile", "docker-compose.yml"):
        found = re.findall(r"dagger\.io/engine:v([0-9.]+[0-9])", (ROOT / name).read_text())
        assert set(found) == {version}, name
