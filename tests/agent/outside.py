"""Git outside, made by hand: a store of objects, and commits that the sandbox is told of."""

import json
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.protocol import Mount
from tests.agent.node import Box, Node, new_uid
from tests.agent.trees import Tree, lower, own, tree

BRANCH = "cove/x"
_ENV = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.com",
}
FILES = {"f": "f\n", "a/one": "1\n", "a/two": "2\n", "gone": "x\n"}


@dataclass
class Outside:
    """A workspace and the repository that it is of."""

    tree: Tree
    store: Path
    tips: list[str] = field(default_factory=list)

    def git(self, *arguments: str, stdin: str = "", **env: str) -> str:
        ours = {**_ENV, "GIT_DIR": str(self.store), "GIT_INDEX_FILE": str(self.store / "index")}
        done = subprocess.run(
            ["git", "-c", "safe.directory=*", *arguments],
            env={**ours, **env},
            input=stdin,
            text=True,
            capture_output=True,
            check=True,
        )
        return done.stdout.strip()

    def commit(self, changes: Mapping[str, str | None], message: str = "outside") -> str:
        """A commit of `changes` to the last one; None removes. Nobody is told."""
        parents = self.tips[-1:]
        self.git("read-tree", *(parents or ["--empty"]))
        for path, text in changes.items():
            if text is None:
                self.git("update-index", "--index-info", stdin=f"0 {'0' * 40}\t{path}\n")
            else:
                blob = self.git("hash-object", "-w", "--stdin", stdin=text)
                self.git(
                    "update-index", "--add", "--replace", "--cacheinfo", f"100644,{blob},{path}"
                )
        written = self.git("write-tree")
        flags = [word for parent in parents for word in ("-p", parent)]
        self.tips.append(self.git("commit-tree", written, *flags, "-m", message))
        own(self.tree.node, self.store)
        return self.tips[-1]

    def tell(
        self, old: str | None = None, new: str | None = None, branch: str = BRANCH, **more: object
    ) -> None:
        """As git outside does after a commit: from the tip before to the tip."""
        old = self.tips[-2] if old is None else old
        said = {"branch": branch, "from": old, "to": new or self.tips[-1], **more}
        writing = self.tree.outside / "head.new"
        writing.write_text(json.dumps(said))
        writing.rename(self.tree.outside / "head")

    @property
    def inside(self) -> Path:
        """The git directory of the sandbox, seen from the host."""
        return self.tree.upper / ".git"

    def tip(self) -> str:
        """Of the branch inside."""
        return (self.inside / "refs" / "heads" / BRANCH).read_text().strip()

    @asynccontextmanager
    async def sandbox(self) -> AsyncIterator[Box]:
        objects = Mount(source=str(self.store / "objects"), target="/.cove/objects")
        outside = Mount(source=str(self.tree.outside), target="/.cove/git")
        async with self.tree.sandbox(mounts=(objects, outside)) as box:
            yield box


def outside(node: Node, files: Mapping[str, str] = FILES) -> Outside:
    """A workspace of one commit, with a git directory of its own."""
    store = node.directory(f"g/{new_uid()}")
    made = Outside(tree(node, lower(node, files)), store)
    made.git("init", "-q", "--bare", str(store), GIT_DIR="")
    made.commit(files, "first")
    private = made.inside
    for name in ("objects/info", f"refs/heads/{Path(BRANCH).parent}"):
        (private / name).mkdir(parents=True)
    (private / "objects" / "info" / "alternates").write_text("/.cove/objects\n")
    (private / "refs" / "heads" / BRANCH).write_text(made.tips[0] + "\n")
    (private / "HEAD").write_text(f"ref: refs/heads/{BRANCH}\n")
    (private / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = false\n")
    made.git("read-tree", made.tips[0])
    (private / "index").write_bytes((store / "index").read_bytes())
    own(node, made.tree.home)
    return made
