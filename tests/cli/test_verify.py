"""Provenance on the command line: `commit` and `push` with it, `verify`, `signing-key`."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.repository import git
from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def committed(suite: Suite, workspace: str, text: str = "1") -> str:
    """A commit with provenance of a change, made by a command; its id."""
    await suite.cove("exec", workspace, "--script", f"echo {text} > new.txt")
    made = await suite.cove("commit", workspace, "-m", "New", "--provenance", "--json")
    assert made.status == 0, made.errors
    commit: str = json.loads(made.text)["commit"]["id"]
    return commit


async def test_a_commit_of_a_workspace_is_verified(suite: Suite, fresh: str) -> None:
    commit = await committed(suite, fresh)
    done = await suite.cove("verify", fresh)
    assert done.status == 0, done.errors
    lines = done.text.splitlines()
    assert lines[0] == f"{commit[:10]} is proven"
    assert f"workspaces/{fresh} (" in lines[1]
    assert "code 0" in lines[-1]
    told = await suite.cove("verify", fresh, commit, "--json")
    said = json.loads(told.text)
    assert (said["commit"], said["proven"]) == (commit, True)
    assert said["statement"]["predicateType"] == "urn:cove:provenance:v1"


@pytest.mark.long
async def test_a_commit_without_is_not_proven(suite: Suite, fresh: str) -> None:
    await committed(suite, fresh)
    done = await suite.cove("verify", fresh, "HEAD", "main")
    assert done.status == 1
    assert "is proven" in done.text
    assert done.text.rstrip().endswith("no provenance of the commit is here")
    missing = await suite.cove("verify", fresh, "none")
    assert (missing.status, missing.text) == (1, "")
    assert "error: " in missing.errors


@pytest.mark.long
async def test_the_key_to_trust_may_be_named(suite: Suite, fresh: str, base: Path) -> None:
    await committed(suite, fresh)
    key = json.loads((await suite.cove("signing-key", "--json")).text)
    assert (await suite.cove("verify", fresh, "--trust", key["keyId"])).status == 0
    other = await suite.cove("verify", fresh, "--trust", "00" * 32)
    assert other.status == 1
    assert "signs with another key" in other.errors
    theirs = base / "theirs.pem"
    theirs.write_bytes(_public_key(base / "theirs.key"))
    refused = await suite.cove("verify", fresh, "--key", str(theirs))
    assert (refused.status, "signed by another key" in refused.text) == (1, True)
    nonsense = await suite.cove("verify", fresh, "--key", __file__)
    assert (nonsense.status, "not an Ed25519 public key" in nonsense.errors) == (1, True)


async def test_a_clone_is_verified_offline(
    suite: Suite, fresh: str, origin: Path, base: Path
) -> None:
    commit = await committed(suite, fresh)
    pushed = await suite.cove("push", fresh, "--provenance")
    assert pushed.status == 0, pushed.errors
    assert pushed.text.splitlines()[1].startswith("provenance refs/notes/cove/")
    key = base / "cove.pem"
    key.write_bytes((await suite.cove("signing-key")).stdout)
    clone = base / f"clone-{fresh}"
    git(base, "clone", "-q", "-b", f"cove/{fresh}", str(origin), str(clone))
    offline = "verify", "--repo", str(clone), "--key", str(key)
    before = await suite.cove(*offline)
    assert (before.status, "git fetch origin" in before.text) == (1, True)
    git(clone, "fetch", "-q", "origin", "refs/notes/cove/*:refs/notes/cove/*")
    done = await suite.cove(*offline, "HEAD", commit)
    assert done.status == 0, done.text + done.errors
    assert done.text.count(f"{commit[:10]} is proven") == 2
    assert (await suite.cove(*offline, "HEAD~1")).status == 1
    assert (await suite.cove(*offline, "none")).status == 1
    assert (await suite.cove("verify", "--repo", str(clone))).status == 2

    # Somebody else's note on it, and the right note on a commit that only looks like it.
    notes = git(clone, "for-each-ref", "--format=%(refname)", "refs/notes").strip()
    git(clone, "commit", "-q", "--amend", "--reset-author", "-C", "HEAD")
    git(clone, "notes", f"--ref={notes}", "copy", commit, "HEAD")
    swapped = await suite.cove(*offline)
    assert (swapped.status, "of another commit" in swapped.text) == (1, True)
    git(clone, "notes", f"--ref={notes}", "add", "-f", "-m", "{}", commit)
    changed = await suite.cove(*offline, commit)
    assert (changed.status, "form it should be" in changed.text) == (1, True)


@pytest.mark.long
async def test_there_may_be_nothing_to_push_with(suite: Suite, fresh: str) -> None:
    done = await suite.cove("push", fresh, "--provenance")
    assert done.status == 0
    assert "there was none to push" in done.errors


def _public_key(path: Path) -> bytes:
    """Of a key that openssl has made."""
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True)
    command = ["openssl", "pkey", "-in", str(path), "-pubout"]
    return subprocess.run(command, check=True, capture_output=True).stdout
