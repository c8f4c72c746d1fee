"""`cove status diff commit log branches push merge conflicts verify signing-key`."""

import argparse
from pathlib import Path
from typing import Final

from cove.cli import completers
from cove.cli.commands.arguments import FOLLOWED, completed, credentials, workspace
from cove.cli.dispatch import locally, with_client
from cove.cli.parser import Commands, Parser

_GROUP: Final = "Git"


def add(commands: Commands) -> None:
    """Add the sub-commands of this module."""
    status = commands.add(
        "status",
        "source:status",
        "show what differs from the head of the branch",
        description="Show what differs from the head of the branch, as `git status --short "
        "--branch` does. Nothing in the workspace is executed for it, its hooks and filters "
        "neither.",
        group=_GROUP,
        examples=[("what was changed", "cove status demo")],
        status=FOLLOWED,
    )
    workspace(status)
    _diff(commands)
    _commit(commands)
    log = commands.add(
        "log",
        "source:log",
        "list commits, newest first",
        group=_GROUP,
        examples=[
            ("the newest ones", "cove log demo"),
            ("five of another branch, a line each", "cove log -n 5 --oneline demo main"),
        ],
        status=FOLLOWED,
    )
    workspace(log)
    log.add_argument(
        "revision",
        nargs="?",
        default="",
        metavar="REVISION",
        help="where to begin; default the head",
    )
    log.add_argument("-n", type=int, default=20, metavar="N", help="at most so many; default 20")
    log.add_argument("--oneline", action="store_true", help="id and subject")
    branches = commands.add(
        "branches",
        "source:branches",
        "list branches: the own one, and the origin's",
        group=_GROUP,
        examples=[("what there is to start from", "cove branches demo")],
        status=FOLLOWED,
    )
    workspace(branches)
    _push(commands)
    _merge(commands)
    _conflicts(commands)
    _verify(commands)
    commands.add(
        "signing-key",
        "verify:signing_key",
        "print the public key of the provenance that is signed here",
        description="Print the public key, as PEM. Whoever is to check commits keeps it, and gives "
        "it to `cove verify --key`.",
        group=_GROUP,
        examples=[("for those who check", "cove signing-key > cove.pem")],
        status=FOLLOWED,
    )


def _diff(commands: Commands) -> None:
    diff = commands.add(
        "diff",
        "source:diff",
        "show the differences themselves",
        description="Show differences as a patch that `git apply` takes. What is too much to show "
        "is cut, and told. Colours are for terminals only; NO_COLOR=1 keeps them away there, too.",
        group=_GROUP,
        examples=[
            ("what is not committed", "cove diff demo"),
            ("all that the workspace is about, below src", "cove diff demo src --range base..work"),
            ("as a patch", "cove diff demo > demo.patch"),
        ],
        status=FOLLOWED,
    )
    workspace(diff)
    _paths(diff)
    completed(
        diff.add_argument(
            "--range", default="head..work", help="head..work, base..work, base..head, or A..B"
        ),
        completers.ranges,
    )


def _commit(commands: Commands) -> None:
    commit = commands.add(
        "commit",
        "source:commit",
        "commit what status shows",
        description="Commit what `cove status` shows, or what of it is at or below the paths. No "
        "hook is run. A path that git itself refuses is told of and left out.",
        group=_GROUP,
        examples=[
            ("all of it", 'cove commit demo -m "Say when"'),
            (
                "a part, in somebody's name",
                "cove commit demo src -m Fix --author 'Ada <ada@example.org>'",
            ),
        ],
        status=FOLLOWED,
    )
    workspace(commit)
    _paths(commit)
    commit.add_argument("-m", "--message", required=True, help="subject, an empty line, body")
    commit.add_argument("--author", metavar="NAME <MAIL>", help="default the suite itself")
    commit.add_argument(
        "--trailer", action="append", default=[], metavar="K=V", help="a line at its end"
    )
    commit.add_argument(
        "--provenance",
        action="store_true",
        help="sign where it comes from, and what ran before it",
    )
    commit.add_argument(
        "--frozen",
        action="store_true",
        help="all files as of one moment: what runs there is frozen meanwhile",
    )
    commit.add_argument("--expect", default="", metavar="COMMIT", help="only if this is the head")


def _push(commands: Commands) -> None:
    push = commands.add(
        "push",
        "source:push",
        "push the branch to the origin, or to another remote",
        description="Push the branch of the workspace. It never overwrites what is there, unless "
        "--expect says what that is. Credentials are used for this call, and never stored.",
        group=_GROUP,
        examples=[
            ("to the origin, as cove/demo", "cove push demo"),
            ("under another name", "cove push demo --branch fix-login"),
            (
                "over ssh",
                "cove push demo --remote ssh://git@example.org/app.git --ssh-key ~/.ssh/id",
            ),
        ],
        status=FOLLOWED,
    )
    workspace(push)
    completed(
        push.add_argument("--remote", default="", help="path or URL; default the origin"),
        completers.folders,
    )
    push.add_argument("--branch", default="", help="name there; default the same")
    push.add_argument(
        "--expect", default="", metavar="COMMIT", help="overwrite the branch there if it is at this"
    )
    push.add_argument(
        "--provenance", action="store_true", help="with what is signed of the workspace's commits"
    )
    credentials(push)


def _merge(commands: Commands) -> None:
    merge = commands.add(
        "merge",
        "merging:merge",
        "land the branch on another, and push that",
        description="Merge the branch of the workspace into a branch of the origin, and push that; "
        "without an origin, into a branch of its own repository. Files of the workspace are "
        "neither read nor changed. A target that moves meanwhile is never overwritten: merge "
        "again. Uncommitted changes are not part of it. With --preview nothing is done, and "
        "conflicts are shown; the exit status is 1 where there are some.",
        group=_GROUP,
        examples=[
            ("into the branch it was made from", "cove merge demo"),
            ("what would be in the way", "cove merge demo --preview"),
            ("as one commit on another branch", 'cove merge demo next --squash -m "Say when"'),
        ],
        status=FOLLOWED,
    )
    workspace(merge)
    merge.add_argument(
        "target",
        nargs="?",
        default="",
        metavar="BRANCH",
        help="where to; default the branch the workspace was made from",
    )
    merge.add_argument(
        "--source", default="", metavar="REVISION", help="what; default the branch's head"
    )
    how = merge.add_mutually_exclusive_group()
    for name, text in (
        ("squash", "all of it as one commit"),
        ("rebase", "each commit again, on top of the target"),
        ("fast-forward", "only if the target has nothing else"),
    ):
        how.add_argument(f"--{name}", dest="strategy", action="store_const", const=name, help=text)
    merge.set_defaults(strategy="merge")
    merge.add_argument("-m", "--message", default="", help="default: Merge branch 'x' into y")
    merge.add_argument("--author", metavar="NAME <MAIL>", help="default the suite itself")
    merge.add_argument(
        "--trailer", action="append", default=[], metavar="K=V", help="a line at its end"
    )
    merge.add_argument(
        "--expect", default="", metavar="COMMIT", help="only if this is the target's head"
    )
    merge.add_argument("--preview", action="store_true", help="show what would come of it")
    credentials(merge)


def _conflicts(commands: Commands) -> None:
    conflicts = commands.add(
        "conflicts",
        "merging:conflicts",
        "who will be in whose way when they are merged",
        description="Merge each workspace with each other, for a look, and show the pairs that "
        "collide with what they cannot have both. Changes nothing. The workspaces are of one "
        "repository, at most 32. The exit status is 1 where some collide, or cannot be looked at.",
        group=_GROUP,
        examples=[("three at once", "cove conflicts one two three")],
        status="0 if none collide, 1 if some do, 2 for a wrong command line.",
    )
    completed(
        conflicts.add_argument(
            "workspaces", nargs="+", metavar="WORKSPACE", help="ids of at least two workspaces"
        ),
        completers.workspaces,
    )
    conflicts.add_argument("--committed", action="store_true", help="without what is not committed")


def _verify(commands: Commands) -> None:
    verify = commands.add(
        "verify",
        "verify:online",
        "check where commits come from",
        description="Check what was signed of commits that were made with `cove commit "
        "--provenance`, and print what is proven: who asked for it, the workspace and its base, "
        "what ran and how that ended.\n\nWith --repo it asks nobody: it reads a clone that has "
        "fetched the notes, `git fetch origin 'refs/notes/cove/*:refs/notes/cove/*'`, and needs "
        "--key. Without --key and --trust the gateway's own word is taken for its key.",
        group=_GROUP,
        examples=[
            ("the head of a workspace", "cove verify demo"),
            ("commits of a clone", "cove verify --repo . --key cove.pem HEAD HEAD~1"),
        ],
        status="0 if all is proven, 1 if not, 2 for a wrong command line.",
    )
    completed(
        verify.add_argument(
            "targets",
            nargs="*",
            metavar="WORKSPACE [COMMIT ...]",
            help="the workspace, unless --repo is given, and commits; default the head",
        ),
        completers.workspaces,
    )
    completed(
        verify.add_argument("--repo", type=Path, metavar="DIR", help="a clone to check offline"),
        completers.folders,
    )
    verify.add_argument(
        "--key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a public key to trust, as PEM; may be given again",
    )
    verify.add_argument(
        "--trust", default="", metavar="KEYID", help="the gateway's key, if it has this id"
    )
    verify.set_defaults(run=_run_verify)


def _run_verify(options: argparse.Namespace) -> int:
    if options.repo is not None:
        return locally("verify:offline", options)
    return with_client("verify:online", options)


def _paths(parser: Parser) -> None:
    completed(
        parser.add_argument("paths", nargs="*", metavar="PATH", help="only these"),
        completers.nothing,
    )
