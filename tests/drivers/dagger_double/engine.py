"""The doubled engine: one process, whose sessions come over a unix socket."""

import array
import asyncio
import base64
import json
import os
import pickle
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import graphql

from tests.drivers.dagger_double import http
from tests.drivers.dagger_double.calls import TRACE, Call, Session, Table
from tests.drivers.dagger_double.fields import Fields, unlike
from tests.drivers.dagger_double.schema import schema
from tests.drivers.dagger_double.values import LAYERS, EngineError


class Engine:
    """Its state is `folder`; nothing of it is kept by an engine that did not stop in order."""

    def __init__(self, folder: Path, layers: int = LAYERS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._kept = folder / "kept"
        self._counted = folder / "commands"
        self._introspection = folder / "introspection"
        self.table = Table(self._evaluate)
        self.fields = Fields(folder, self.table.result)
        self.fields.layers = layers
        if self._kept.exists():
            self.table.restore(pickle.loads(self._kept.read_bytes()))
            self._kept.unlink()

    def stop(self) -> None:
        """In order: what is persistable is there again at the next start."""
        self._kept.write_bytes(pickle.dumps(self.table.kept()))

    async def answer(self, session: Session, request: http.Request, writer: Any) -> None:
        if not request.allowed(session.token):
            await http.reply(writer, {"errors": [{"message": "unauthorized"}]}, 401)
        elif request.path == "/v1/logs":
            await self._tell(session, writer)
        elif request.path == "/query":
            trace = request.headers.get("traceparent", "").split("-")
            TRACE.set(trace[1] if len(trace) == 4 else "")
            await http.reply(writer, await self._query(session, json.loads(request.body)))
        else:
            await http.reply(writer, {}, 404)

    async def _query(self, session: Session, content: dict[str, Any]) -> Any:
        text = str(content["query"])
        if "__schema" in text and self._introspection.exists():
            return self._introspection.read_bytes()
        document = graphql.parse(text)
        if errors := graphql.validate(schema(), document):
            return {"errors": [{"message": each.message} for each in errors]}
        done = graphql.execute(
            schema(),
            document,
            context_value=session,
            field_resolver=self._field,
            type_resolver=lambda value, *_: value.kind,
        )
        result = await done if isinstance(done, Awaitable) else done
        self._counted.write_text(str(self.fields.count))
        if result.errors:
            return {"data": result.data, "errors": [_told(each) for each in result.errors]}
        answer = {"data": result.data}
        if "__schema" in text:
            self._introspection.write_text(json.dumps(answer))
        return answer

    def _field(
        self, source: Call | None, info: "graphql.GraphQLResolveInfo[Any]", /, **given: Any
    ) -> Any:
        session: Session = info.context
        name, owner = info.field_name, info.parent_type.name
        if source is None and name == "node":
            return self.table.named(given["id"])
        if source is not None and name == "id":
            return self.table.name(source, session)
        if source is not None and name == "sync":
            return self._synced(source, session)
        types = info.parent_type.fields[name].args
        arguments = {
            key: self.table.named(value)
            if graphql.get_named_type(types[key].type).name == "ID" and isinstance(value, str)
            else value
            for key, value in given.items()
        }
        returned = graphql.get_named_type(info.return_type)
        told = unlike(owner, name, arguments, session)
        call = self.table.call(returned.name, owner, name, source, arguments, unlike=told)
        if graphql.is_object_type(returned) and not graphql.is_list_type(info.return_type):
            return call
        return self.table.result(call, session)

    async def _synced(self, call: Call, session: Session) -> str:
        await self.table.result(call, session)
        return self.table.name(call, session)

    async def _evaluate(self, call: Call, session: Session) -> Any:
        return await self.fields.value(call, session)

    @staticmethod
    async def _tell(session: Session, writer: asyncio.StreamWriter) -> None:
        """Telemetry, until the client leaves."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        session.listeners.append(queue.put_nowait)
        try:
            await http.begin_events(writer)
            number = 0
            while True:
                record = await queue.get()
                number += 1
                data = json.dumps(
                    {"resourceLogs": [{"scopeLogs": [{"logRecords": [_log(record)]}]}]}
                )
                writer.write(f"id: {number}\nevent: logs\ndata: {data}\n\n".encode())
                await writer.drain()
        finally:
            session.listeners.remove(queue.put_nowait)


def _log(record: dict[str, Any]) -> dict[str, Any]:
    trace = base64.b64encode(bytes.fromhex(record["trace"])).decode()
    return {
        "traceId": trace,
        "body": {"stringValue": record["text"]},
        "attributes": [{"key": "stdio.stream", "value": {"intValue": str(record["stream"])}}],
    }


def _told(error: graphql.GraphQLError) -> dict[str, Any]:
    found = error.original_error
    extensions = found.extensions if isinstance(found, EngineError) else {}
    said = {"message": error.message, "path": [str(each) for each in error.path or ()]}
    if not isinstance(found, EngineError):
        sys.stderr.write(f"{found!r}\n")
    return {**said, "extensions": extensions}


class Door:
    """Takes clients: each passes the listener that its own clients connect to."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()

    async def serve(self, path: Path, ready: Callable[[], None]) -> None:
        path.unlink(missing_ok=True)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, stop.set)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.setblocking(False)
            listener.bind(str(path))
            listener.listen(64)
            accepting = self._loop.create_task(self._accept(listener))
            ready()
            await stop.wait()
            accepting.cancel()

    async def _accept(self, listener: socket.socket) -> None:
        clients = set()
        while True:
            client, _ = await self._loop.sock_accept(listener)
            task = self._loop.create_task(self._client(client))
            clients.add(task)
            task.add_done_callback(clients.discard)

    async def _client(self, client: socket.socket) -> None:
        with client:
            while True:
                await self._readable(client)
                try:
                    token, ancillary, _, _ = client.recvmsg(4096, socket.CMSG_SPACE(4))
                    break
                except BlockingIOError:
                    continue
            if not ancillary:
                return
            (descriptor,) = array.array("i", ancillary[0][2][:4])
            session = Session(token.decode())
            server = await asyncio.start_server(
                lambda reader, writer: http.requests(
                    reader,
                    writer,
                    lambda request, out: self._engine.answer(session, request, out),
                ),
                sock=socket.socket(fileno=descriptor),
            )
            client.send(b"ready")
            async with server:
                with suppress(OSError):
                    while await self._loop.sock_recv(client, 64):
                        pass
            self._engine.table.end(session)

    async def _readable(self, client: socket.socket) -> None:
        ready = asyncio.Event()
        client.setblocking(False)
        self._loop.add_reader(client, ready.set)
        await ready.wait()
        self._loop.remove_reader(client)


def _say(text: bytes) -> None:
    os.write(1, text)


def main(folder: Path, path: Path, *, cold: bool, layers: int) -> int:
    if cold:
        (folder / "kept").unlink(missing_ok=True)
    schema()

    async def serve() -> None:
        engine = Engine(folder, layers)
        await Door(engine).serve(path, lambda: _say(b"ready\n"))
        engine.stop()

    asyncio.run(serve())
    return 0
