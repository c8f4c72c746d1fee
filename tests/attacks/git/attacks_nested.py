"""Attacks by repositories inside the worktree."""

from typing import Final

from tests.attacks.git.attack import Attack

NESTED: Final = [
    Attack(
        name="an embedded bare repository",
        covers=("F16",),
        script="""
        git init -q --bare src
        mkdir src/work
        echo one > src/work/file
        git -C src config core.bare false
        git -C src config core.worktree work
        git --git-dir=src --work-tree=src/work add -f -A
        git -C src config core.fsmonitor "$CANARY" """,
    ),
    Attack(
        name="a repository taken up as a submodule",
        covers=("F17",),
        script="""
        repository nested
        git -C nested config core.fsmonitor "$CANARY" """,
    ),
    Attack(
        name="the configuration of a submodule",
        covers=("A2",),
        script="""
        repository sub
        git -C sub config core.fsmonitor "$CANARY" """,
    ),
    Attack(
        name="a filter of a submodule",
        covers=("A3",),
        script="""
        repository sub
        git -C sub config filter.evil.clean "$CANARY"
        echo '* filter=evil' > sub/.gitattributes
        echo two > sub/file""",
    ),
    Attack(
        name="a submodule whose git directory is elsewhere",
        covers=("A1", "A2"),
        script="""
        repository tools/real
        git -C tools/real config core.fsmonitor "$CANARY"
        mv tools/real/.git tools/git
        mkdir -p sub pointed linked
        echo one > sub/file
        echo 'gitdir: ../tools/git' > sub/.git
        cp sub/.git pointed/.git
        ln -s ../tools/git linked/.git""",
        long=True,
    ),
    Attack(
        name="a directory called .GIT",
        covers=("A13",),
        script="""
        mkdir -p upper/.GIT GIT~1
        git config -f upper/.GIT/config core.fsmonitor "$CANARY"
        cp upper/.GIT/config GIT~1/config""",
        hits=False,
    ),
    Attack(
        name="a bare repository in every directory",
        covers=("F16",),
        script="""
        for each in src tools docs; do
            git init -q --bare $each
            git -C $each config core.bare false
            git -C $each config core.worktree ..
            git -C $each config filter.evil.clean "$CANARY"
            git -C $each config diff.external "$CANARY"
            git -C $each config core.fsmonitor "$CANARY"
        done
        echo '* filter=evil' > src/.gitattributes""",
        long=True,
    ),
]
