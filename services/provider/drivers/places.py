"""Where the parts of a worktree really are: nothing that git names is believed unseen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent import overlay
from agent.protocol import SPEC_VERSION, Facts, Mode, Mount, Overlay
from servicekit.errors import InvalidArgument
from services.provider.driver import Worktree
from services.provider.errors import CapabilityMissing

_LAYERS: Final = ("git/checkouts", "git/layers", "git/worktrees")
_STACKED: Final = "git/layers"
_XATTRS: Final = {Mode.ROOT: overlay.TRUSTED, Mode.USER: overlay.USER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A worktree as a launcher takes it: real paths."""

    tree: str = ""
    overlay: Overlay | None = None
    lock: str = ""
    mounts: tuple[Mount, ...] = ()
    """What is bound beside it."""


class Places:
    """Finds what lies below the state directory of this node."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def place(self, uid: str, worktree: Worktree, launcher: Facts) -> Placed:
        """Raises InvalidArgument for a path that leads out, or to what is not what it should be.

        Raises CapabilityMissing for layers that this launcher cannot mount.
        """
        if launcher.spec < SPEC_VERSION and (worktree.upper or worktree.lock):
            raise CapabilityMissing(
                "the launcher is older than the worktree",
                remedy="End the launcher when nothing runs; a new one takes its place.",
                capability="overlay",
            )
        own = f"git/worktrees/{uid}"
        mounts = []
        if worktree.git_view:
            view = self._directory("mount.git_view", worktree.git_view, own)
            mounts.append(Mount(source=view, target="/workspace/.git"))
        if worktree.objects:
            objects = self._directory("mount.objects", worktree.objects, "git/repositories")
            mounts.append(Mount(source=objects, target="/.cove/objects"))
        if worktree.outside:
            outside = self._straight("mount.outside", worktree.outside, own)
            mounts.append(Mount(source=str(outside), target="/.cove/git"))
        return Placed(
            tree="" if worktree.upper else self._directory("mount.worktree", worktree.tree, own),
            overlay=self._overlay(worktree, own, launcher.mode) if worktree.upper else None,
            lock=self._lock(worktree.lock, own) if worktree.lock else "",
            mounts=tuple(mounts),
        )

    def _overlay(self, worktree: Worktree, own: str, mode: Mode) -> Overlay:
        if worktree.xattrs != _XATTRS[mode]:
            raise CapabilityMissing(
                f"the layers of the worktree are marked with {worktree.xattrs} attributes, "
                f"which this node's launcher cannot read: it runs as {mode}",
                remedy="Run git and the launcher both as root, or both as an ordinary user, and "
                "make the workspace anew.",
                capability="overlay",
            )
        lowers = [
            self._straight(f"mount.lowers[{number}]", path, *_LAYERS)
            for number, path in enumerate(worktree.lowers)
        ]
        if not 1 <= len(lowers) <= overlay.MOST_LOWERS:
            raise InvalidArgument("mount.lowers", f"not 1 to {overlay.MOST_LOWERS}")
        if bool(worktree.stack) != bool(worktree.layers):
            raise InvalidArgument("mount.layers", "goes with mount.stack")
        if worktree.layers not in ("", _STACKED):
            raise InvalidArgument("mount.layers", f"not {_STACKED}")
        # Where layers are stacked, git may be at it in this moment: the launcher waits for it.
        place = self._movable if worktree.stack else self._straight
        return Overlay(
            lowers=tuple(map(str, lowers)),
            upper=str(place("mount.upper", worktree.upper, own)),
            work=str(place("mount.work", worktree.work, own)),
            xattrs=worktree.xattrs,
            stack=self._stack(worktree.stack, own) if worktree.stack else "",
            layers=str((self._state / _STACKED).resolve()) if worktree.stack else "",
        )

    def _stack(self, path: str, below: str) -> str:
        full = self._plain("mount.stack", path, below)
        if full.exists() and not full.is_file():
            raise InvalidArgument("mount.stack", "not a file")
        return str(full)

    def _movable(self, field: str, path: str, *below: str) -> Path:
        """As `_straight`, but it may be away."""
        full = self._plain(field, path, *below)
        if full.exists() and not full.is_dir():
            raise InvalidArgument(field, "not a directory")
        return full

    def _directory(self, field: str, path: str, below: str) -> str:
        """The real path of a directory, which must be below a folder of git's."""
        full, allowed = (self._state / path).resolve(), (self._state / below).resolve()
        if not (path.startswith(f"{below}/") and full.is_relative_to(allowed) and full != allowed):
            raise InvalidArgument(field, f"not below {below}")
        if not full.is_dir():
            raise InvalidArgument(field, "not a directory")
        return str(full)

    def _straight(self, field: str, path: str, *below: str) -> Path:
        """The path of a directory that no symlink below one of the folders leads to."""
        full = self._plain(field, path, *below)
        if not full.is_dir():
            raise InvalidArgument(field, "not a directory")
        return full

    def _lock(self, path: str, below: str) -> str:
        full = self._plain("mount.lock", path, below)
        if not full.is_file():
            raise InvalidArgument("mount.lock", "not a file")
        return str(full)

    def _plain(self, field: str, path: str, *below: str) -> Path:
        for folder in below:
            if path.startswith(f"{folder}/"):
                full = (self._state / folder).resolve() / path.removeprefix(f"{folder}/")
                if full == full.resolve() and full != (self._state / folder).resolve():
                    return full
                raise InvalidArgument(field, "not a plain path: it has a symlink or '..'")
        raise InvalidArgument(field, f"not below {' or '.join(below)}")
