"""`cove cp ls-files`."""

from typing import Final

from cove.cli import completers
from cove.cli.commands.arguments import FOLLOWED, completed, workspace
from cove.cli.parser import Commands

_GROUP: Final = "Files"


def add(commands: Commands) -> None:
    """Add the sub-commands of this module."""
    cp = commands.add(
        "cp",
        "files:cp",
        "copy files into a workspace, or out of it",
        description="Copy a file, or a directory with all that is in it. One of the two is "
        "WORKSPACE:PATH, with a path relative to the worktree; a local path that has a colon is "
        "written ./with:colon. Into a directory that is there a copy goes under its own name.\n\n"
        "A file, and all that is copied into the workspace, arrives whole or not at all. Symbolic "
        "links that stay within the directory are copied as links; those that lead out of it, "
        "pipes and devices are not copied, and told of.",
        group=_GROUP,
        examples=[
            ("a file into the workspace", "cove cp notes.txt demo:docs/"),
            ("a directory out of it", "cove cp demo:build ./build"),
        ],
        status="0 if all was copied, 1 if something was not, 2 for a wrong command line.",
    )
    cp.add_argument(
        "-r", "--recursive", action="store_true", help="as a habit: a directory needs no flag"
    )
    for name, says in (
        ("source", "a local path, or WORKSPACE:PATH"),
        ("target", "the other of the two"),
    ):
        completed(cp.add_argument(name, metavar=name.upper(), help=says), completers.paths)
    ls = commands.add(
        "ls-files",
        "files:ls_files",
        "list a directory of a workspace",
        group=_GROUP,
        examples=[
            ("the worktree", "cove ls-files demo"),
            ("a directory of it", "cove ls-files demo src"),
        ],
        status=FOLLOWED,
    )
    workspace(ls)
    completed(
        ls.add_argument(
            "path", nargs="?", default=".", metavar="PATH", help="default the worktree"
        ),
        completers.nothing,
    )
