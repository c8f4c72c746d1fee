"""The suite under attack, and what must never be found in it afterwards."""

import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cove.client import Client
from cove.git.v1.git_pb2_grpc import GitServiceStub
from cove.workspace import Workspace
from tests.attacks.git.arena import Arena, Watch
from tests.attacks.git.rpcs import Answer, Target
from tests.support.suite import Suite


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacked:
    """A suite that runs, and the arena it is attacked in."""

    suite: Suite
    cove: Client
    service: GitServiceStub
    arena: Arena
    origin: Path
    bare: Path
    variables: Mapping[str, str]
    """Of every script."""
    known: Set[Path] = field(default_factory=set)
    """Files of the other tenant itself."""

    @asynccontextmanager
    async def workspace(self, repository: Path | None = None) -> AsyncIterator[Workspace]:
        """A workspace of the origin; deleted with the block, whatever is in it."""
        made = await self.cove.workspaces.create(
            repository=f"file://{repository or self.origin}", id=f"attack-{secrets.token_hex(4)}"
        )
        try:
            yield made
        finally:
            await made.delete(force=True, allow_missing=True)

    def target(self, workspace: Workspace) -> Target:
        """For calls of all RPCs on it."""
        return Target(workspace=workspace, git=self.service, tenant=self.tenant, bare=self.bare)

    def reknown(self) -> "Attacked":
        """With all that is there now taken as the other tenant's own."""
        return replace(self, known={path for path, _ in self.in_files()})

    @property
    def tenant(self) -> str:
        """Of the workspaces, as the folders of their repositories tell."""
        names = {path.name for path in (self.suite.state / "git" / "repositories").iterdir()}
        [own] = names - {self.variables["OTHER_OBJECTS"].split("/")[-3]}
        return own

    async def plant(self, workspace: Workspace, script: str) -> str:
        """Run a script in it; what went wrong, or empty."""
        done = await workspace.execute("sh", "-c", script, env=self.variables, timeout=60)
        return done.stderr.decode(errors="replace") if done.exit_status != 0 else ""

    async def hits(
        self, workspace: Workspace, *, strict: bool = True
    ) -> tuple[list[str], list[Answer]]:
        """Call every RPC. What was hit, and all answers; `strict`: none may be an inner failure."""
        pid = self.suite.pid("git")
        hits: list[str] = []
        answers: list[Answer] = []
        with Watch(self.arena.token) as watch:
            async for answer in self.target(workspace).all():
                assert answer.is_told or not strict, answer
                answers.append(answer)
                hits += [
                    f"{answer.rpc} shows {what}" for what in self.arena.found_in([answer.text])
                ]
                hits += [f"{answer.rpc} wrote {name}" for name in self.arena.dropped()]
        if watch.seen:
            hits.append("the canary ran outside")
        hits += [f"there is {what} in a repository" for what in self.in_objects()]
        hits += [f"there is {what} in {path}" for path, what in self.in_files()]
        assert self.suite.pid("git") == pid, "the git service died"
        return hits, answers

    def in_objects(self) -> set[str]:
        """What of others' files is in any object that the service or a push wrote."""
        own = self.suite.state / "git" / "repositories" / self.tenant
        found = self.arena.stolen_in(self.suite.state / "git" / "worktrees")
        for objects in (*own.glob("*/objects"), self.bare / "objects", _objects_of(self.origin)):
            found |= self.arena.found_in([_texts(objects)]) - {"a forged commit"}
        return found

    def in_files(self) -> Iterator[tuple[Path, str]]:
        """Files of the state, not too large, that hold a stolen text in clear."""
        find = ["find", str(self.suite.state), "-xdev", "-type", "f", "-size", "-8M", "-print0"]
        listed = subprocess.run(find, capture_output=True, check=False).stdout
        for word in (self.arena.secret, self.arena.others, f"{self.arena.token}-r42"):
            grep = ["xargs", "-0", "-r", "grep", "-lsF", "--", word]
            done = subprocess.run(grep, input=listed, capture_output=True, check=False)
            for path in (Path(os.fsdecode(line)) for line in done.stdout.splitlines()):
                if path not in self.known:
                    yield path, self.arena.stolen[word.encode()]


def _objects_of(repository: Path) -> Path:
    return repository / ".git" / "objects"


def _texts(objects: Path) -> bytes:
    """All contents of an object store, without belief in anything that lies beside it."""
    env = {
        "PATH": "/usr/bin:/bin",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_OBJECT_DIRECTORY": str(objects),
        "GIT_DIR": str(_trusted(objects)),
    }
    argv = ["git", "cat-file", "--batch-all-objects", "--batch", "--unordered", "--buffer"]
    return subprocess.run(argv, env=env, capture_output=True, check=False).stdout


def _trusted(objects: Path) -> Path:
    # The directory itself, where the service or the test made it.
    return objects.parent
