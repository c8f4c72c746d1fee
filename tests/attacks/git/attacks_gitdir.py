"""Attacks by what a git directory is made of."""

from typing import Final

from tests.attacks.git.attack import Attack

_ELSEWHERE: Final = """own
cp -r .git tools/git
git config -f tools/git/config core.fsmonitor "$CANARY"
rm -rf .git
"""
_POISON: Final = """
import os, sys, zlib
os.chdir(".git/objects")
data = sys.argv[2].encode() + b"\\n"
name = f"{sys.argv[1][:2]}/{sys.argv[1][2:]}"
os.makedirs(name[:2], exist_ok=True)
if os.path.exists(name):
    os.unlink(name)
open(name, "wb").write(zlib.compress(b"blob %d\\0" % len(data) + data))
"""

REPLACED: Final = [
    Attack(
        name="a .git file to another place",
        covers=("F14", "A1"),
        script=f"{_ELSEWHERE}\necho 'gitdir: tools/git' > .git",
        refused=True,
    ),
    Attack(
        name="a .git link to another place",
        covers=("F15",),
        script=f"{_ELSEWHERE}\nln -s tools/git .git",
        refused=True,
    ),
    Attack(
        name="core.worktree of the host",
        covers=("F18",),
        script='own; git config core.worktree "$SECRETS"',
    ),
    Attack(
        name="alternates of another tenant",
        covers=("F19", "B5"),
        script="""own
        mkdir -p .git/objects/info
        echo "$OTHER_OBJECTS" >> .git/objects/info/alternates
        rm -f .git/packed-refs
        echo "$OTHER_COMMIT" > .git/refs/heads/stolen
        echo 'ref: refs/heads/stolen' > .git/HEAD""",
        refused=True,
    ),
    Attack(
        name="a branch at a commit of another tenant",
        covers=("B5",),
        script="""own
        mkdir -p .git/objects/info
        echo "$OTHER_OBJECTS" >> .git/objects/info/alternates
        branch=$(git symbolic-ref HEAD)
        mkdir -p "$(dirname ".git/$branch")"
        echo "$OTHER_COMMIT" > ".git/$branch" """,
        refused=True,
        long=True,
    ),
    Attack(
        name="a commondir of another place",
        covers=("B5",),
        script="""own
        cp -r "$(git rev-parse --git-common-dir)" tools/common
        git config -f tools/common/config core.fsmonitor "$CANARY"
        echo "$PWD/tools/common" > "$(git rev-parse --git-dir)/commondir" """,
        worktree=True,
        refused=True,
        long=True,
    ),
    Attack(
        name="objects are a link to the host",
        covers=("B5",),
        script='own; mv .git/objects .git/old; ln -s "$DROP" .git/objects',
        refused=True,
    ),
    Attack(
        name="refs are a link to the host",
        covers=("B5",),
        script='own; mv .git/refs/heads tools/heads; ln -s "$DROP" .git/refs/heads',
        after=(("branch", "new", "HEAD~0"), ("fetch", "-q", ".", "HEAD:refs/heads/other")),
        refused=True,
        long=True,
    ),
    Attack(
        name="files that git writes are links to the host",
        covers=("B5",),
        script="""own
        rm -rf .git/logs
        ln -s "$DROP/logs" .git/logs
        for name in index COMMIT_EDITMSG ORIG_HEAD FETCH_HEAD config.lock index.lock; do
            rm -rf ".git/$name"
            ln -s "$DROP/$name" ".git/$name"
        done
        rm -f .git/*.lock""",
        refused=True,
        long=True,
    ),
]

LIES: Final = [
    Attack(
        name="a replaced commit",
        covers=("B6",),
        script="""own
        git replace HEAD "$(git commit-tree -m "$FORGED" 'HEAD^{tree}')" """,
        long=True,
    ),
    Attack(
        name="grafts",
        covers=("B6",),
        script="""own
        forged=$(git commit-tree -m "$FORGED" 'HEAD^{tree}')
        mkdir -p .git/info
        echo "$(git rev-parse HEAD) $forged" > .git/info/grafts""",
        long=True,
    ),
    Attack(
        name="an object with other content",
        covers=("B6",),
        script=f"""own
        for pack in .git/objects/pack/*.pack; do
            test -e "$pack" || continue
            mv "$pack" tools/pack
            rm -f .git/objects/pack/*
            git unpack-objects -q < tools/pack
        done
        python3 -c '{_POISON}' "$(git rev-parse HEAD:README.md)" "$FORGED" """,
        refused=True,
        long=True,
    ),
]

BROKEN: Final = [
    Attack(
        name="HEAD points out of the repository",
        covers=("B5",),
        script='own; rm .git/HEAD; ln -s "$SECRETS/file" .git/HEAD',
        hits=False,
        refused=True,
        long=True,
    ),
    Attack(
        name="HEAD names a file of the host",
        covers=("B5",),
        script='own; echo "ref: ../../../../../../../..$SECRETS/file" > .git/HEAD',
        hits=False,
        refused=True,
        long=True,
    ),
    Attack(
        name="refs in a ring",
        covers=("B5",),
        script="""own
        echo 'ref: refs/heads/a' > .git/HEAD
        echo 'ref: refs/heads/b' > .git/refs/heads/a
        echo 'ref: refs/heads/a' > .git/refs/heads/b""",
        hits=False,
        refused=True,
        long=True,
    ),
    Attack(
        name="refs that are files of the host",
        covers=("B5",),
        script="""own
        for name in "$(git symbolic-ref HEAD)" refs/heads/x refs/tags/y packed-refs; do
            mkdir -p "$(dirname ".git/$name")"
            rm -f ".git/$name"
            ln -s "$SECRETS/file" ".git/$name"
        done""",
        refused=True,
        long=True,
    ),
    Attack(
        name="files of git without end",
        covers=("B21",),
        script="""own
        sparse .git/index
        sparse .git/packed-refs
        sparse .git/info/exclude
        sparse .git/refs/heads/huge""",
        hits=False,
        refused=True,
        long=True,
    ),
    Attack(
        name="garbage in every file of git",
        covers=("B6",),
        script="""own
        find .git -type f -exec sh -c 'for f; do head -c 4096 /dev/urandom > "$f.new"; \\
            mv -f "$f.new" "$f"; done' sh {} +""",
        hits=False,
        refused=True,
        long=True,
    ),
    Attack(
        name="a pipe instead of HEAD",
        covers=("B21",),
        script="own; pipe .git/HEAD",
        refused=True,
        long=True,
    ),
    Attack(
        name="pipes instead of files of git",
        covers=("B21",),
        script="""own
        mkdir -p .git/info .git/objects/info
        for name in index info/exclude packed-refs objects/info/alternates config; do
            pipe ".git/$name"
        done""",
        refused=True,
    ),
    Attack(
        name="directories instead of files of git",
        covers=("B5",),
        script="""own
        for name in index packed-refs config HEAD info/exclude; do
            rm -f ".git/$name"
            mkdir -p ".git/$name/x"
        done""",
        hits=False,
        refused=True,
        long=True,
    ),
    Attack(
        name="nothing is left of .git",
        covers=("B6",),
        script="own; rm -rf .git",
        hits=False,
        refused=True,
        long=True,
    ),
]
