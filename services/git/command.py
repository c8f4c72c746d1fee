"""The one place where a git command line and its environment are made.

Environment and configuration are built from nothing: no variable of the service,
no file of the system, of a user or of a workspace decides what git does. What a
caller chose reaches git only after `--end-of-options` or `--`, or on stdin.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

# Every sub-command in use, with the options it always gets.
_COMMANDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "add": ("--intent-to-add", "--ignore-errors", "--pathspec-from-file=-"),
        "cat-file": (),
        "check-ref-format": (),
        "checkout-index": (),
        "commit-graph write": ("--reachable", "--no-progress"),
        "commit-tree": (),
        "count-objects": (),
        "diff": ("--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=all"),
        "diff-index": ("--no-ext-diff", "--no-textconv", "--ignore-submodules=all"),
        "diff-tree": ("--raw", "-r", "-t", "-z", "--no-renames", "--no-ext-diff", "--no-textconv"),
        "fetch": ("--no-auto-maintenance", "--no-write-fetch-head", "--no-recurse-submodules"),
        "for-each-ref": (),
        "fsck": ("--no-dangling", "--no-progress"),
        "index-pack": ("--stdin", "--fix-thin", "--strict"),
        "hash-object": ("-t", "commit", "-w", "--no-filters"),
        "log": ("--no-ext-diff", "--no-textconv", "--no-color", "--no-show-signature"),
        "ls-remote": ("--symref",),
        "merge-base": (),
        "merge-tree": ("--write-tree", "--messages", "-z"),
        "notes add": ("--file=-",),
        "notes show": (),
        "pack-objects": ("--quiet", "--stdout", "--revs", "--thin", "--delta-base-offset"),
        "pack-refs": ("--all",),
        "prune": (),
        "push": ("--porcelain", "--no-verify", "--no-recurse-submodules", "--no-signed"),
        "read-tree": (),
        "receive-pack": (),
        "repack": ("-d", "-q", "--threads=1", "--window-memory=256m"),
        "rev-list": (),
        "rev-parse": ("--verify", "--quiet"),
        "status": ("--porcelain=v2", "-z", "--ignore-submodules=all"),
        "unpack-objects": ("-q", "--strict"),
        "update-index": (),
        "update-ref": (),
        "upload-pack": (),
        "version": (),
        "write-tree": (),
    }
)
# These keep to the older rule: no `--end-of-options`, or nothing after their options.
_PLAIN: Final = frozenset(
    {
        *("upload-pack", "receive-pack", "cat-file", "commit-tree", "rev-parse"),
        *("notes add", "notes show"),
    }
)

_CONFIG: Final[Mapping[str, str]] = MappingProxyType(
    {
        "advice.detachedHead": "false",
        "commit.gpgSign": "false",
        "core.alternateRefsCommand": "true",
        "core.attributesFile": "/dev/null",
        # Larger files are not held in memory: they are binary in a diff.
        "core.bigFileThreshold": "16m",
        "core.editor": "false",
        "core.excludesFile": "/dev/null",
        "core.fsmonitor": "false",
        "core.fsync": "committed,reference",
        "core.hooksPath": "/dev/null",
        # Packs of any size, in the address space that a cell has.
        "core.packedGitLimit": "512m",
        "core.packedGitWindowSize": "32m",
        "core.pager": "cat",
        # What any system takes for .git is left out by path; else a check refuses the whole.
        "core.protectHFS": "true",
        "core.protectNTFS": "true",
        "core.sshCommand": "false",
        "core.symlinks": "true",
        "core.untrackedCache": "false",
        "credential.helper": "",
        "diff.external": "",
        "diff.ignoreSubmodules": "all",
        "fetch.fsckObjects": "false",
        "fetch.recurseSubmodules": "false",
        # What is received stays one file, whose growth can be watched.
        "fetch.unpackLimit": "1",
        "gc.auto": "0",
        "http.cookieFile": "",
        "http.followRedirects": "false",
        "http.proxy": "",
        "http.sslVerify": "true",
        "log.showSignature": "false",
        "maintenance.auto": "false",
        "pack.threads": "2",
        "protocol.allow": "never",
        # The general rule loses to a rule for one protocol, wherever that is written.
        "protocol.ext.allow": "never",
        "protocol.fd.allow": "never",
        "protocol.file.allow": "never",
        "protocol.git.allow": "never",
        "protocol.http.allow": "never",
        "protocol.https.allow": "never",
        "protocol.ssh.allow": "never",
        "push.followTags": "false",
        "push.recurseSubmodules": "no",
        "receive.autogc": "false",
        "receive.denyCurrentBranch": "refuse",
        "receive.denyDeleteCurrent": "refuse",
        "receive.fsckObjects": "true",
        "safe.bareRepository": "explicit",
        "status.submoduleSummary": "false",
        "submodule.recurse": "false",
    }
)

_ID: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def is_commit_id(text: str) -> bool:
    """Whether `text` has the form of a full object id."""
    return _ID.fullmatch(text) is not None


def check_id(output: bytes) -> str:
    """The object id that a command printed; what else it prints is not believed."""
    text = output.decode("ascii", "replace").strip()
    if not is_commit_id(text):
        raise ValueError("git printed no object id")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A git command line and everything it may know."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where in its cell git finds things. Absolute paths of the cell."""

    git_dir: str
    work_tree: str = ""
    index: str = ""
    objects: str = ""
    alternates: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    """More variables of ours, such as the author of a commit."""


def git(
    where: Where,
    name: str,
    options: Sequence[str] = (),
    *,
    values: Sequence[str] = (),
    paths: Sequence[str] = (),
    config: Sequence[tuple[str, str]] = (),
) -> Command:
    """The command `git <name>`: `options` are ours, `values` and `paths` may be a caller's."""
    argv = ["git", "--no-pager", "--literal-pathspecs", *name.split(), *_COMMANDS[name], *options]
    if any(not option.startswith("-") for option in options):
        raise ValueError("an option begins with a dash")
    if name in _PLAIN and any(value.startswith("-") for value in values):
        raise ValueError("a value may not look like an option")
    if values and name not in _PLAIN:
        argv.append("--end-of-options")
    argv += values
    if paths:
        argv += ["--", *paths]
    return Command(name=name, argv=tuple(argv), env=_environment(where, config))


def together(*commands: Command) -> Command:
    """The commands one after the other in one cell, while each succeeds.

    They share one place and one environment. A shell starts them, but its text
    is made of numbers alone: what they are given stays arguments.
    """
    if any(command.env != commands[0].env for command in commands):
        raise ValueError("commands of one cell have one environment")
    parts, position = [], 1
    for command in commands:
        numbers = range(position, position + len(command.argv))
        parts.append(" ".join(f'"${{{number}}}"' for number in numbers))
        position = numbers.stop
    words = [word for command in commands for word in command.argv]
    return Command(
        name=commands[0].name,
        argv=("sh", "-c", " && ".join(parts), "sh", *words),
        env=commands[0].env,
    )


def _environment(where: Where, config: Sequence[tuple[str, str]]) -> Mapping[str, str]:
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "TZ": "UTC",
        "GIT_ADVICE": "0",
        "GIT_ASKPASS": "false",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": "/",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_SSH_COMMAND": "false",
        "GIT_TERMINAL_PROMPT": "0",
    }
    named = {
        "GIT_DIR": where.git_dir,
        "GIT_WORK_TREE": where.work_tree,
        "GIT_INDEX_FILE": where.index,
        "GIT_OBJECT_DIRECTORY": where.objects,
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": where.alternates,
    }
    env |= {key: value for key, value in named.items() if value}
    env |= where.variables
    pairs = [*_CONFIG.items(), *config]
    env["GIT_CONFIG_COUNT"] = str(len(pairs))
    for number, (key, value) in enumerate(pairs):
        env[f"GIT_CONFIG_KEY_{number}"] = key
        env[f"GIT_CONFIG_VALUE_{number}"] = value
    return env
