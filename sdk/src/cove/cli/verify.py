"""`cove verify signing-key`."""

import argparse
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cove.cli.console import Console, printable
from cove.cli.errors import Failure, UsageError
from cove.client import Client
from cove.provenance import Key, Provenance, Unproven, verify, workspace_of
from cove.status import NotFound

_NOTES: Final = "refs/notes/cove"
_SHORT: Final = 10
_DIGEST: Final = 12


async def signing_key(cove: Client, _: argparse.Namespace, console: Console) -> int:
    answer = await cove.signing_key()
    if console.as_json:
        console.json(answer)
    else:
        console.write(answer.public_key.encode())
    return 0


async def online(cove: Client, options: argparse.Namespace, console: Console) -> int:
    """Check what the gateway has of a workspace's commits."""
    if not options.targets:
        raise UsageError("a workspace is needed, or --repo", "`cove help verify` says more.")
    workspace, *commits = options.targets
    keys = _keys(options.key) or [await _key_of(cove, options.trust)]
    source = cove.workspaces.named(workspace).source
    proven = 0
    for revision in commits or [""]:
        try:
            found = await source.provenance(revision)
            told = _checked(found.commit, found.envelope, keys, found.commit_object, console)
        except NotFound as error:
            if error.reason != "ERROR_REASON_PROVENANCE_NOT_FOUND":
                raise
            told = _tell_unproven(error.metadata.get("commit", revision), error.message, console)
        proven += told
    return 0 if proven == len(commits or [""]) else 1


def offline(options: argparse.Namespace, console: Console) -> int:
    """Check notes of a clone."""
    if options.trust:
        raise UsageError("--trust asks the gateway; with --repo give --key")
    keys = _keys(options.key)
    if not keys:
        raise UsageError("--repo needs --key", "`cove signing-key` prints it.")
    proven = True
    for revision in options.targets or ["HEAD"]:
        name = f"{revision}^{{commit}}"
        commit = _git(options.repo, "rev-parse", "--verify", "--quiet", "--end-of-options", name)
        if commit is None:
            raise Failure(f"{printable(revision)}: no such commit", "`git fetch`, or name another.")
        id = commit.decode().strip()  # noqa: A001 - what it is.
        data = _git(options.repo, "cat-file", "commit", id) or b""
        envelope = _git(options.repo, "notes", f"--ref={_NOTES}/{workspace_of(data)}", "show", id)
        if envelope is None:
            why = f"no note on it is here: `git fetch origin '{_NOTES}/*:{_NOTES}/*'` gets them"
            proven &= _tell_unproven(id, why, console)
        else:
            proven &= _checked(id, envelope, keys, data, console)
    return 0 if proven else 1


def _checked(
    commit: str, envelope: str | bytes, keys: Sequence[Key], data: bytes, console: Console
) -> bool:
    try:
        proven = verify(envelope, keys, data)
        if proven.commit != commit:
            raise Unproven(f"the commit is {proven.commit}")
    except Unproven as error:
        return _tell_unproven(commit, str(error), console)
    if console.as_json:
        console.json({"commit": commit, "proven": True, "keyId": proven.key_id, **_all(proven)})
    else:
        _show(proven, console)
    return True


def _all(proven: Provenance) -> dict[str, Any]:
    return {"statement": dict(proven.statement)}


def _tell_unproven(commit: str, why: str, console: Console) -> bool:
    if console.as_json:
        console.json({"commit": commit, "proven": False, "problem": why})
    else:
        console.line(f"{printable(commit)[:_SHORT]} is not proven: {printable(why)}")
    return False


def _show(proven: Provenance, console: Console) -> None:
    base = proven.base_commit[:_SHORT] or "nothing"
    facts = {
        "workspace": f"{proven.workspace} ({proven.uid}) of {proven.tenant or 'no tenant'}",
        "asked for by": proven.principal,
        "repository": proven.repository or "its own",
        "branch": f"{proven.branch}, from {base}",
        "made": proven.time.isoformat(timespec="seconds"),
        "key": proven.key_id,
    }
    console.line(f"{proven.commit[:_SHORT]} is proven")
    for name, value in facts.items():
        console.line(f"  {name + ':':<14}{printable(value)}")
    count = len(proven.executions) + proven.executions_omitted
    since = proven.since.isoformat(timespec="seconds")
    console.line(f"  {'ran:':<14}{count} since {since}")
    for each in proven.executions:
        how = " ".join(f"{key} {value}" for key, value in each.exit.items()) or "still running"
        digest = f"sha256:{each.command_sha256[:_DIGEST]}"
        console.line(f"    {digest}  {printable(how):<14}  {printable(each.id)}")
    if proven.executions_omitted:
        console.line(f"    {proven.executions_omitted} older ones are left out")


def _keys(paths: Sequence[Path]) -> list[Key]:
    found = []
    for path in paths:
        try:
            found.append(Key.read(path))
        except OSError as error:
            raise Failure(f"{path}: {error.strerror}") from None
        except ValueError:
            raise Failure(f"{path}: not an Ed25519 public key in PEM") from None
    return found


async def _key_of(cove: Client, trusted: str) -> Key:
    key = Key.load((await cove.signing_key()).public_key)
    if trusted and trusted.lower() != key.id:
        raise Failure(
            f"the gateway signs with another key: {key.id}",
            "What an older key has signed is checked with --key FILE.",
        )
    return key


def _git(repository: Path, *arguments: str) -> bytes | None:
    """What the user's git answers; None if it fails."""
    command = ["git", "--no-replace-objects", "--no-pager", "-C", str(repository), *arguments]
    try:
        done = subprocess.run(
            command, env=os.environ | {"LC_ALL": "C"}, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise Failure("git is not installed", "Install git, or leave --repo out.") from None
    return done.stdout if done.returncode == 0 else None
