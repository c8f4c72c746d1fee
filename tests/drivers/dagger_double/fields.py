"""What each field of the API does: those that are used. All else is refused as not doubled."""

import asyncio
import shutil
import tarfile
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.drivers.dagger_double import commands, snapshots
from tests.drivers.dagger_double.calls import TRACE, Call, Session
from tests.drivers.dagger_double.values import (
    LAYERS,
    Changeset,
    Container,
    Directory,
    EngineError,
    File,
    Plain,
    Secret,
)
from tests.support.unpacking import unpack

Arguments = dict[str, Any]
_IMAGES = ("base", "python")


class Fields:
    """By type and name. `count` counts the commands that ran."""

    def __init__(self, folder: Path, result: Callable[[Call, Session], Awaitable[Any]]) -> None:
        self.count = 0
        self.layers = LAYERS
        self._snapshots = snapshots.Snapshots(folder / "snapshots")
        self._result = result

    async def value(self, call: Call, session: Session) -> Any:
        parent = await self._result(call.parent, session) if call.parent else None
        arguments = {
            name: await self._result(each, session) if isinstance(each, Call) else each
            for name, each in call.arguments.items()
        }
        method = getattr(self, f"_{call.owner.lower()}_{_snake(call.name)}", None)
        if method is None:
            raise EngineError(f"the double has no {call.owner}.{call.name}")
        made = method(session, parent, **arguments)
        found = await made if asyncio.iscoroutine(made) else made
        if isinstance(found, Container) and found.layers > self.layers:
            raise EngineError("failed to mount: invalid argument: mount options is too long")
        return found

    # Query

    def _query_version(self, *_: Any) -> str:
        return "v0.21.11"

    def _query_container(self, *_: Any) -> Container:
        return Container()

    def _query_directory(self, *_: Any) -> Directory:
        return Directory()

    def _query_host(self, *_: Any) -> Plain:
        return Plain("Host")

    def _query_set_secret(self, session: Session, _: Any, name: str, plaintext: str) -> Secret:
        session.secrets[name] = plaintext
        return Secret(name)

    # Host

    def _host_directory(
        self, _: Session, __: Plain, path: str, exclude: list[str] | None = None, **___: Any
    ) -> Directory:
        if not Path(path).is_dir():
            raise EngineError(f"lstat {path}: no such file or directory")
        made = self._snapshots.changed(
            None, lambda fresh: snapshots.merge(Path(path), fresh, exclude or ())
        )
        return Directory(made, 1)

    def _host_file(self, _: Session, __: Plain, path: str, **___: Any) -> File:
        if not Path(path).is_file():
            raise EngineError(f"lstat {path}: no such file or directory")
        copy = self._snapshots.empty() / "file"
        shutil.copy2(path, copy)
        return File(copy)

    # Container: where it comes from

    def _container_from(self, _: Session, __: Container, address: str, **___: Any) -> Container:
        name, digest = (*address.split("@sha256:"), "")[:2]
        name = name.removeprefix("registry.test/").partition(":")[0]
        if name == "private":
            raise EngineError(
                f"failed to resolve {address}: pull access denied, authorization failed"
            )
        if name == "away":
            raise EngineError(
                f"failed to resolve {address}: dial tcp: lookup registry.test: timeout"
            )
        if name not in _IMAGES or digest not in ("", "0" * 64):
            raise EngineError(f"failed to resolve image {address}: manifest unknown: not found")
        made = self._snapshots.changed(None, snapshots.base)
        image = f"registry.test/{name}:latest@sha256:{'0' * 64}"
        return Container(made, {"IMAGE": name}, layers=1, image=image)

    def _container_import(self, _: Session, __: Container, source: File, **___: Any) -> Container:
        def unpacked(fresh: Path) -> None:
            try:
                with tarfile.open(source.path) as archive:
                    unpack(archive, fresh)
            except tarfile.TarError as error:
                raise EngineError("archive/tar: invalid tar header") from error

        return Container(self._snapshots.changed(None, unpacked), layers=1)

    def _container_with_rootfs(
        self, _: Session, container: Container, directory: Directory
    ) -> Container:
        return replace(container, root=directory.root, layers=directory.layers)

    def _container_image_ref(self, _: Session, container: Container) -> str:
        return container.image

    # Container: what is in it

    def _container_rootfs(self, _: Session, container: Container) -> Directory:
        return Directory(container.root, container.layers)

    def _container_directory(
        self, _: Session, container: Container, path: str, **__: Any
    ) -> Directory:
        return Directory(snapshots.existing(container.root, path), container.layers)

    def _container_file(self, _: Session, container: Container, path: str, **__: Any) -> File:
        return File(snapshots.existing(container.root, path))

    def _container_exists(self, _: Session, container: Container, path: str, **__: Any) -> bool:
        found = snapshots.inside(container.root, path)
        inside = Path(path).parts[1:2]
        if inside and inside[0] in ("usr", "bin", "lib", "lib64", "sbin"):
            return Path(path).exists()  # This host's own, as where commands run.
        return found.exists()

    def _container_env_variable(self, _: Session, container: Container, name: str) -> str | None:
        return container.env.get(name)

    def _container_as_tarball(self, _: Session, container: Container, **__: Any) -> File:
        assert container.root
        path = self._snapshots.empty() / "image.tar"
        with tarfile.open(path, "w") as archive:
            archive.add(container.root, ".")
        return File(path)

    # Container: what changes it

    def _container_with_env_variable(
        self, _: Session, container: Container, name: str, value: str, **__: Any
    ) -> Container:
        return replace(container, env={**container.env, name: value})

    def _container_with_user(self, _: Session, container: Container, name: str) -> Container:
        return replace(container, user=name)

    def _container_with_workdir(
        self, _: Session, container: Container, path: str, **__: Any
    ) -> Container:
        return replace(container, workdir=path)

    def _container_with_secret_variable(
        self, _: Session, container: Container, name: str, secret: Secret
    ) -> Container:
        return replace(container, secrets={**container.secrets, name: secret.name})

    def _container_without_secret_variable(
        self, _: Session, container: Container, name: str
    ) -> Container:
        return replace(
            container, secrets={key: each for key, each in container.secrets.items() if key != name}
        )

    def _container_with_new_file(
        self, _: Session, container: Container, path: str, contents: str, **__: Any
    ) -> Container:
        def write(fresh: Path) -> None:
            place = snapshots.inside(fresh, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(contents)

        return self._changed(container, write)

    def _container_with_directory(
        self, _: Session, container: Container, path: str, source: Directory, **__: Any
    ) -> Container:
        return self._changed(container, lambda fresh: _put(source, snapshots.inside(fresh, path)))

    def _container_without_directory(
        self, _: Session, container: Container, path: str, **__: Any
    ) -> Container:
        return self._changed(
            container, lambda fresh: snapshots.remove(snapshots.inside(fresh, path))
        )

    async def _container_with_exec(
        self,
        session: Session,
        container: Container,
        args: list[str],
        *,
        stdin: str = "",
        redirectStdout: str = "",  # noqa: N803 # As the API has it.
        redirectStderr: str = "",  # noqa: N803
        expect: str = "SUCCESS",
        **__: Any,
    ) -> Container:
        if container.root is None:
            raise EngineError(f'exec: "{args[0]}": no such file or directory')
        missing = [each for each in container.secrets.values() if each not in session.secrets]
        if missing:
            raise EngineError(f"secret {missing[0]} not found")
        hidden = {name: session.secrets[each] for name, each in container.secrets.items()}
        fresh = await asyncio.to_thread(self._snapshots.changed, container.root, lambda _: None)
        self.count += 1
        hear = _hearing(session, TRACE.get())
        env = {**container.env, **hidden}
        code, out, err = await commands.run(
            fresh, args, env, container.workdir, container.user, stdin.encode(), hear
        )
        for value in hidden.values():
            out, err = (each.replace(value.encode(), b"***") for each in (out, err))
        allowed = range(256) if expect == "ANY" else (0,)
        if code not in allowed or 128 <= code <= 191:
            raise EngineError(
                f'process "{" ".join(args)[:80]}" did not complete successfully: exit code: {code}',
                _type="EXEC_ERROR",
                cmd=args,
                exitCode=code,
                stdout=out.decode(errors="replace").strip()[-102400:],
                stderr=err.decode(errors="replace").strip()[-102400:],
            )
        for path, data in ((redirectStdout, out), (redirectStderr, err)):
            if path:
                snapshots.inside(fresh, path).write_bytes(data)
        return replace(
            container, root=fresh, layers=container.layers + 1, code=code, stdout=out, stderr=err
        )

    def _changed(self, container: Container, change: Callable[[Path], object]) -> Container:
        made = self._snapshots.changed(container.root, change)
        return replace(container, root=made, layers=container.layers + 1)

    # Directory, File, Changeset

    def _directory_with_directory(
        self, _: Session, directory: Directory, path: str, source: Directory, **__: Any
    ) -> Directory:
        made = self._snapshots.changed(
            directory.root, lambda fresh: _put(source, snapshots.inside(fresh, path))
        )
        return Directory(made, directory.layers + 1)

    def _directory_without_directory(
        self, _: Session, directory: Directory, path: str
    ) -> Directory:
        made = self._snapshots.changed(
            directory.root, lambda fresh: snapshots.remove(snapshots.inside(fresh, path))
        )
        return Directory(made, directory.layers + 1)

    def _directory_exists(self, _: Session, directory: Directory, path: str, **__: Any) -> bool:
        return snapshots.inside(directory.root, path).exists()

    def _directory_entries(self, _: Session, directory: Directory, **__: Any) -> list[str]:
        assert directory.root
        return sorted(
            f"{each.name}/" if each.is_dir() else each.name for each in directory.root.iterdir()
        )

    def _directory_export(self, _: Session, directory: Directory, path: str, **__: Any) -> str:
        assert directory.root
        snapshots.merge(directory.root, Path(path))
        return path

    def _directory_changes(self, _: Session, after: Directory, **arguments: Any) -> Changeset:
        before: Directory = arguments["from"]
        return snapshots.compare(before.root, after.root)

    def _file_contents(self, _: Session, file: File, **__: Any) -> str:
        return file.path.read_bytes().decode(errors="replace")

    def _file_export(self, _: Session, file: File, path: str, **__: Any) -> str:
        shutil.copy2(file.path, path)
        return path

    def _changeset_is_empty(self, _: Session, found: Changeset) -> bool:
        return not (found.added or found.modified or found.removed)

    def _changeset_removed_paths(self, _: Session, found: Changeset) -> list[str]:
        return list(found.removed)

    def _changeset_layer(self, _: Session, found: Changeset) -> Directory:
        made = self._snapshots.changed(None, lambda fresh: snapshots.layer(found, fresh))
        return Directory(made, 1)


def unlike(call_owner: str, name: str, arguments: Arguments, session: Session) -> str:
    """What tells calls apart that look the same: whose host it is, and whether to look again."""
    if call_owner == "Host" or name in ("setSecret", "host"):
        return uuid.uuid4().hex if arguments.get("noCache") else session.number
    return ""


def _put(source: Directory, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    if source.root is not None:
        snapshots.merge(source.root, target)


def _hearing(session: Session, trace: str) -> commands.Hear:
    """Tells listeners what came, as telemetry: of a trace only, and text only."""

    def hear(stream: int, data: bytes) -> None:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return
        for listener in session.listeners if trace else ():
            listener({"trace": trace, "stream": stream, "text": text})

    return hear


def _snake(name: str) -> str:
    return "".join(f"_{each.lower()}" if each.isupper() else each for each in name)
