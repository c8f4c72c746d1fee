"""What an attack is after on the host, and how it is seen that one got it."""

import os
import secrets
import shutil
import tempfile
import threading
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.suite import children

UNPRIVILEGED: Final = 60900
"""Uid of plain git where the tests are root: nothing of the host is at its mercy."""
_SAMPLE: Final = 0.15
LINGER: Final = 0.6  # Longer than two samples.

# Tells who runs it outside of a sandbox: it writes where only the host can, else stays a while
# to be seen. Without quotes, so that it can stand between any.
_CANARY: Final = (
    ": {token}; test -e /home/cove && exit 0; echo {token}-r$((40+2));"
    " mkdir {drop}/ran-$$ 2>/dev/null && exit 0; sleep {linger}; : "
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """A directory of the host that everybody can reach."""

    root: Path
    token: str
    """In the command line of the canary, and nowhere else."""
    secret: str
    """The text of every file in `secrets`."""
    others: str
    """The text of a file of another tenant."""
    forged: str

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def drop(self) -> Path:
        """Where anybody may write, of whom there is none in a sandbox or cell."""
        return self.root / "drop"

    @property
    def plain(self) -> Path:
        """Where plain git is tried."""
        return self.root / "plain"

    @property
    def canary(self) -> str:
        return _CANARY.format(token=self.token, drop=self.drop, linger=LINGER)

    @property
    def stolen(self) -> Mapping[bytes, str]:
        """Texts that no answer may hold, and what it means that one does."""
        return {
            self.secret.encode(): "a file of the host",
            self.others.encode(): "a file of another tenant",
            f"{self.token}-r42".encode(): "output of the canary",
            self.forged.encode(): "a forged commit",
        }

    def environment(self, others_objects: Path, others_commit: str, door: str) -> dict[str, str]:
        """Variables of a script."""
        return {
            "CANARY": self.canary,
            "SECRETS": str(self.secrets),
            "DROP": str(self.drop),
            "OTHER_OBJECTS": str(others_objects),
            "OTHER_COMMIT": others_commit,
            "DOOR": door,
            "FORGED": self.forged,
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_AUTHOR_NAME": "Mallory",
            "GIT_AUTHOR_EMAIL": "mallory@example.org",
            "GIT_COMMITTER_NAME": "Mallory",
            "GIT_COMMITTER_EMAIL": "mallory@example.org",
        }

    def give(self, path: Path) -> None:
        """Give a directory with all that is in it to who runs plain git."""
        if os.geteuid() == 0:
            for each in (path, *path.rglob("*")):
                os.chown(each, UNPRIVILEGED, UNPRIVILEGED, follow_symlinks=False)

    def dropped(self) -> list[str]:
        """What lies in `drop`; it is removed."""
        found = sorted(entry.name for entry in self.drop.iterdir())
        for entry in list(self.drop.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        return found

    def found_in(self, texts: Iterable[bytes]) -> set[str]:
        """What of `stolen` is in any of the texts."""
        left, found = dict(self.stolen), set[str]()
        for text in texts:
            for word in [word for word in left if word in text]:
                found.add(left.pop(word))
        return found

    def stolen_in(self, directory: Path) -> set[str]:
        """What of others' files is in loose objects below a directory."""
        return self.found_in(_loose_objects(directory)) - {"a forged commit"}


@contextmanager
def arena() -> Iterator[Arena]:
    """Make one; removed with the block."""
    root = Path(tempfile.mkdtemp(prefix="cove-arena-", dir="/var/tmp"))
    try:
        made = Arena(
            root=root,
            token=f"canary{secrets.token_hex(8)}",
            secret=f"secret{secrets.token_hex(16)}",
            others=f"others{secrets.token_hex(16)}",
            forged=f"forged{secrets.token_hex(16)}",
        )
        root.chmod(0o755)
        for directory, mode in ((made.secrets, 0o755), (made.drop, 0o777), (made.plain, 0o755)):
            directory.mkdir()
            directory.chmod(mode)
        made.give(made.plain)
        for name in ("file", "passwd", "README.md"):
            (made.secrets / name).write_text(f"{made.secret}\n")
        yield made
    finally:
        shutil.rmtree(root, ignore_errors=True)


class Watch:
    """Looks out for the canary among the processes of the host, in whatever namespace."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._seen: Counter[str] = Counter()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    @property
    def seen(self) -> bool:
        """Whether one stayed. In a sandbox it is gone at once."""
        return any(times > 1 for times in self._seen.values())

    def _look(self) -> None:
        """Outside it has a child, the `sleep`; in a sandbox it starts nothing, and may yet take
        its time where there is much else to do."""
        while not self._end.wait(_SAMPLE):
            for process in Path("/proc").iterdir():
                if process.name.isdecimal():
                    with suppress(OSError):
                        if self._token in (process / "cmdline").read_bytes() and children(
                            int(process.name)
                        ):
                            self._seen[process.name] += 1


def _loose_objects(directory: Path) -> Iterator[bytes]:
    """The contents of all loose objects of all object stores below a directory."""
    for folder, folders, files in os.walk(directory):
        if Path(folder).parent.name != "objects" or len(Path(folder).name) != 2:
            continue
        folders.clear()
        for name in files:
            with suppress(OSError, zlib.error):
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink():
                    yield zlib.decompress(path.read_bytes())
