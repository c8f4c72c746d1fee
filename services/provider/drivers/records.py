"""What drivers keep of each environment: a folder below the state directory."""

import json
import os
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from agent.handle import valid_uid
from agent.inside.connection import EXHAUSTED
from agent.removal import remove_tree
from servicekit.errors import Unavailable
from services.provider.driver import Limits, Network, Rule, Spec, Worktree

_VERSION: Final = 2
_READABLE: Final = (1, 2)
"""In version 1 a worktree is a directory; it has no layers and no lock."""
_FOLDERS: Final = ("home", "tmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What an environment was provisioned with."""

    uid: str
    tenant: str
    spec: Spec
    worktree: Worktree
    provision_time: datetime
    network_revision: int = 0
    """Of the network in `spec`; 0 is the one that it was provisioned with."""
    stopped: bool = False
    """Whether no sandbox of it may be started."""
    stop_revision: int = 0
    """Of `stopped`."""
    image: str = ""
    """The digest that the name in `spec` stood for, by which the engine knows it."""
    image_source: str = ""
    """As a registry knows it; empty where it was never in one."""

    def same(self, other: "Record") -> bool:
        """Whether it was asked for as `other` is. Its network may have changed since, and it
        may be stopped."""
        return (self.tenant, _lasting(self.spec), self.worktree) == (
            other.tenant,
            _lasting(other.spec),
            other.worktree,
        )


def _lasting(spec: Spec) -> Spec:
    # A record of an earlier version does not say whether it may be rebuilt.
    return replace(spec, network=Network(), rebuild=False)


class Records:
    """Folders named by uid, each with a record; `home` and `tmp` come when they are needed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def folder(self, uid: str) -> Path:
        return self._root / uid

    def has(self, uid: str) -> bool:
        """Whether anything of it is on the disk, of whatever driver."""
        return self.folder(uid).exists()

    def uids(self) -> list[str]:
        return sorted(path.name for path in self._root.iterdir() if valid_uid(path.name))

    def count(self) -> int:
        """How many there are, of whatever driver."""
        return sum(valid_uid(path.name) for path in self._root.iterdir())

    def read(self, uid: str) -> Record | None:
        """None when nothing is there, or it was not finished.

        Raises Unavailable when that cannot be seen now: what is there must not be taken for lost.
        """
        try:
            data = json.loads((self.folder(uid) / "record").read_bytes())
            return _from_json(data) if data["version"] in _READABLE else None
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise Unavailable("no descriptor is to spare", service="provider") from error
            return None
        except (ValueError, KeyError, TypeError):
            return None

    def whole(self, uid: str) -> bool:
        """Its folders are as they were made, or not there at all; `home` comes first."""
        home, tmp = (os.path.lexists(self.folder(uid) / name) for name in _FOLDERS)
        return home or not tmp

    def make_folders(self, uid: str, owner: int | None) -> None:
        """Make `home` and `tmp` unless they are there, of `owner` when given."""
        for name in _FOLDERS:
            folder = self.folder(uid) / name
            folder.mkdir(mode=0o700, exist_ok=True)
            if owner is not None:
                os.chown(folder, owner, owner)

    def write(self, record: Record) -> None:
        """Write the record, durably."""
        folder = self.folder(record.uid)
        folder.mkdir(mode=0o700, exist_ok=True)
        data = {"version": _VERSION, **asdict(record)}
        data["provision_time"] = record.provision_time.isoformat()
        data["spec"]["required"] = sorted(record.spec.required)
        writing = folder / "record.new"
        with writing.open("wb") as file:
            file.write(json.dumps(data).encode())
            file.flush()
            os.fsync(file.fileno())
        writing.rename(folder / "record")

    def remove(self, uid: str) -> bool:
        """Remove everything of it; true when anything was there."""
        root = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Without it, what is left is no environment.
            (self.folder(uid) / "record").unlink(missing_ok=True)
            remove_tree(os.fsencode(uid), root, unlock=True)
        except FileNotFoundError:
            return False
        finally:
            os.close(root)
        return True


def completed(spec: Spec, driver: str, processes: int) -> Spec:
    """With the defaults of this node."""
    limits = replace(spec.limits, processes=spec.limits.processes or processes)
    return replace(spec, driver=driver, limits=limits)


def _from_json(data: dict[str, Any]) -> Record:
    spec, worktree = data["spec"], data["worktree"]
    return Record(
        uid=data["uid"],
        tenant=data["tenant"],
        spec=Spec(
            driver=spec["driver"],
            limits=Limits(**spec["limits"]),
            network=_network(spec.get("network", {})),
            image=spec.get("image", ""),
            setup=tuple(spec.get("setup", ())),
            required=frozenset(spec.get("required", ())),
            rebuild=spec.get("rebuild", False),
        ),
        worktree=Worktree(**{**worktree, "lowers": tuple(worktree.get("lowers", ()))}),
        provision_time=datetime.fromisoformat(data["provision_time"]).astimezone(UTC),
        network_revision=data.get("network_revision", 0),
        stopped=data.get("stopped", False),
        stop_revision=data.get("stop_revision", 0),
        image=data.get("image", ""),
        image_source=data.get("image_source", ""),
    )


def _network(data: dict[str, Any]) -> Network:
    rules = data.get("rules", ())
    return Network(
        rules=tuple(Rule(host=each["host"], ports=tuple(each["ports"])) for each in rules)
    )
