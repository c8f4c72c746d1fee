"""A PostgreSQL of the tests' own: a private folder and socket, no port, an unprivileged user."""

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest

PASSWORD: Final = "pass:w/rd@ %41"
_DATABASE: Final = "cove"
_ROOM: Final = 2 << 30
_HBA: Final = "local all locked scram-sha-256\nlocal all all trust\n"


def binaries() -> Path:
    """Of the newest PostgreSQL that is installed; skips the test if there is none."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])
    )
    if found:
        return found[-1].parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    pytest.skip("no PostgreSQL: install Debian's package postgresql")


class Postgres:
    """One server. Ends with this process, however that ends."""

    def __init__(self, folder: Path, *, fsync: bool) -> None:
        self._folder = folder
        self._fsync = fsync
        self._bin = binaries()
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._shell: subprocess.Popen[str] | None = None
        if os.geteuid() == 0:
            os.chown(folder, *_user())
        self._run("initdb", "--no-sync", "--auth=trust", "--username=root", "--encoding=UTF8",
                  "--locale=C", "--wal-segsize=1", f"--pgdata={folder}/data")  # fmt: skip
        (folder / "data" / "pg_hba.conf").write_text(_HBA)

    def start(self) -> None:
        """Returns when it takes connections."""
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._folder),
            "max_connections": "100",
            "shared_buffers": "16MB",
            "fsync": "on" if self._fsync else "off",
        }
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *_as_user("--pdeathsig", "QUIT"),
                    str(self._bin / "postgres"),
                    *("-D", str(self._folder / "data")),
                    *(
                        part
                        for name, value in options.items()
                        for part in ("-c", f"{name}={value}")
                    ),
                ],
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + 30
        while subprocess.run(
            [self._bin / "pg_isready", "-q", "-h", self._folder], check=False
        ).returncode:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < until, "PostgreSQL does not come up"
            time.sleep(0.02)

    def stop(self, sign: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT ends connections first, SIGKILL is a crash of all of it."""
        if self._shell:
            self._shell.kill()
            self._shell.communicate()
            self._shell = None
        if self._process:
            children = _children(self._process.pid)
            self._process.send_signal(sign)
            if sign == signal.SIGKILL:
                for child in children:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, sign)
            self._process.wait(60)
            while any(Path(f"/proc/{child}").exists() for child in children):
                time.sleep(0.01)
            self._process = None

    def prepare(self) -> None:
        """Make the users and the database of the tests."""
        self._run("createuser", "-h", str(self._folder), "-U", "root", "cove")
        self._run("createdb", "-h", str(self._folder), "-U", "root", "-O", "cove", _DATABASE)
        password = PASSWORD.replace("'", "''")
        self.sql(f"CREATE ROLE locked LOGIN PASSWORD '{password}'")

    def fresh(self) -> str:
        """URL of a place for one registry's tables: a schema of its own."""
        schema = f"t{next(self._numbers)}"
        self.sql(
            f"CREATE SCHEMA {schema} AUTHORIZATION cove; GRANT ALL ON SCHEMA {schema} TO locked"
        )
        return self.url(schema)

    def url(self, schema: str, user: str = "cove", password: str = "") -> str:
        secret = f":{quote(password, safe='')}" if password else ""
        return f"postgresql://{user}{secret}@/{_DATABASE}?host={self._folder}&search_path={schema}"

    def sql(self, statement: str) -> list[str]:
        """Run it as superuser; the lines it gives."""
        if self._shell is None:
            self._shell = subprocess.Popen(
                [self._bin / "psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-U", "root",
                 "-h", self._folder, _DATABASE],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        assert self._shell.stdin
        assert self._shell.stdout
        self._shell.stdin.write(f"{statement};\n\\echo done\n")
        self._shell.stdin.flush()
        lines: list[str] = []
        while (line := self._shell.stdout.readline()) != "done\n":
            assert line, "psql ended"
            lines.append(line.rstrip("\n"))
        return lines

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*_as_user(), str(self._bin / program), *arguments],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def running(*, fsync: bool = False) -> Iterator[Postgres]:
    """A server that is gone after the block, with all it kept."""
    binaries()
    folder = Path(tempfile.mkdtemp(prefix="cove-pg-", dir=None if fsync else _memory()))
    try:
        server = Postgres(folder, fsync=fsync)
        try:
            server.start()
            server.prepare()
            yield server
        finally:
            server.stop(signal.SIGQUIT)
    finally:
        shutil.rmtree(folder)


def _memory() -> Path | None:
    """Where files cost least, if there is room for some."""
    shared = Path("/dev/shm")
    try:
        roomy = shutil.disk_usage(shared).free > _ROOM
    except OSError:
        return None
    return shared if roomy and os.access(shared, os.W_OK) else None


def _user() -> tuple[int, int]:
    """PostgreSQL refuses to be root."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    return 65534, 65534


def _as_user(*options: str) -> list[str]:
    """What goes before a program so that it does not run as root."""
    change: list[str] = []
    if os.geteuid() == 0:
        uid, gid = _user()
        change = [f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    return ["setpriv", *change, *options] if change or options else []


def _children(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(each) for each in listed.stdout.split()]
