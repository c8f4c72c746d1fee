"""`cove create update ls show watch rm undelete suspend resume`."""

import argparse

from cove.cli import completers
from cove.cli.commands import forking
from cove.cli.commands.arguments import (
    FOLLOWED,
    WORKSPACES,
    completed,
    credentials,
    lifetime,
    size,
    workspace,
)
from cove.cli.parser import Commands


def add(commands: Commands) -> None:
    """Add the sub-commands of this module."""
    _create(commands)
    _update(commands)
    forking.add(commands)
    ls = commands.add(
        "ls",
        "workspaces:ls",
        "list workspaces",
        group=WORKSPACES,
        examples=[
            ("what there is", "cove ls"),
            ("also deleted ones whose work is still kept", "cove ls --all"),
            ("the newest first", "cove ls --order-by 'create_time desc'"),
            ("those of a team that failed", "cove ls --filter 'state=FAILED labels.team=web'"),
            ("the ids alone", "cove ls --json | jq -r '.workspaces[].name'"),
        ],
        status=FOLLOWED,
    )
    ls.add_argument("-a", "--all", action="store_true", help="also deleted ones")
    _filter(ls)
    ls.add_argument(
        "--order-by",
        default="",
        metavar="ORDER",
        help="name, create_time, update_time or state, each with ' desc' or without",
    )
    show = commands.add(
        "show",
        "workspaces:show",
        "show a workspace",
        description="Show what a workspace was made of, its state and branch, and how long its "
        "work is kept once it is deleted.",
        group=WORKSPACES,
        examples=[("all that is known of it", "cove show demo")],
        status=FOLLOWED,
    )
    workspace(show)
    _watch(commands)
    _rm(commands)
    _suspend(commands)
    undelete = commands.add(
        "undelete",
        "workspaces:undelete",
        "bring back a deleted workspace",
        description="Bring back a deleted workspace whose unsaved work is still kept, with all "
        "its files. `cove ls --all` lists them, `cove show` says until when.",
        group=WORKSPACES,
        examples=[("bring it back", "cove undelete demo")],
        status=FOLLOWED,
    )
    completed(
        undelete.add_argument("workspace", metavar="WORKSPACE", help="id of the workspace"),
        completers.deleted,
    )


def _create(commands: Commands) -> None:
    create = commands.add(
        "create",
        "workspaces:create",
        "make a workspace from a repository; prints its id",
        description="Make a workspace: a worktree of the repository at the revision, on a branch "
        "of its own, and a sandbox in which commands run on it. The id is printed alone on the "
        "standard output; what else there is to say goes to the standard error.\n\n"
        "A local repository may have uncommitted changes: they are told of, and not taken. "
        "A remote one is asked anew each time, so that a branch is what it is there now.",
        group=WORKSPACES,
        examples=[
            ("of the repository here, on a branch cove/demo", "cove create . --id demo"),
            (
                "of a branch of a remote, limited to 2 GiB of memory",
                "cove create https://example.org/app.git --revision main --memory 2GiB",
            ),
            (
                "of a private one",
                "cove create https://example.org/app.git --password-stdin < token",
            ),
            ("a new, empty one, in a script", "id=$(cove create)"),
        ],
        status=FOLLOWED,
    )
    option = create.add_argument
    completed(
        option(
            "repository",
            nargs="?",
            default="",
            metavar="REPOSITORY",
            help="path or URL; none: a new, empty one",
        ),
        completers.folders,
    )
    option("--id", default="", help="the id; the server makes one when it is missing")
    option("--revision", default="", help="branch, tag or commit to start from")
    option("--branch", default="", help="name of the new branch; default cove/ID")
    option("--depth", type=int, default=0, metavar="N", help="commits of history; default all")
    option(
        "--filter",
        default="",
        metavar="SPEC",
        help="old contents: blob:none, blob:limit=1m",
    )
    option("--driver", default="", help="what it stands on; `cove capabilities` lists them")
    option("--image", default="", help="root file system of its programs, for drivers with images")
    option(
        "--setup",
        action="append",
        default=[],
        metavar="SCRIPT",
        help="run on the image, once for all workspaces that name the same",
    )
    option(
        "--require",
        action="append",
        default=[],
        metavar="NAME",
        help="what it must be able to do: terminal, image, memory_limit, ...",
    )
    option("-e", "--env", action="append", default=[], metavar="K=V", help="for every command")
    option("-l", "--label", action="append", default=[], metavar="K=V", help="a label")
    option("--memory", type=size, default=0, metavar="SIZE", help="limit of memory: 512MiB, 2GiB")
    option("--processes", type=int, default=0, metavar="N", help="limit of processes")
    option("--cpus", type=float, default=0, metavar="N", help="limit of processor time")
    option("--disk", type=size, default=0, metavar="SIZE", help="limit of files of its own: 10GiB")
    option("--open-files", type=int, default=0, metavar="N", help="descriptors of each process")
    _network(create)
    _life(create)
    option("--keep-failed", action="store_true", help="keep the record when it cannot be made")
    option("--no-wait", action="store_true", help="return when it is recorded, not when ready")
    credentials(create)


def _network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--network",
        action="append",
        default=[],
        metavar="HOST[:PORT,...]",
        help="what programs may reach, by its proxy; port 443 by default, * is every public host",
    )


def _life(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("--ttl", type=lifetime, metavar="TIME", help="remove it so long after it was made: 8h")
    option(
        "--idle-timeout",
        type=lifetime,
        metavar="TIME",
        help="suspend it when nothing is done with it for so long: 30m",
    )


def _update(commands: Commands) -> None:
    update = commands.add(
        "update",
        "workspaces:update",
        "change the network, the life or the labels of a workspace",
        description="Change what the programs of a workspace may reach, how long it lives, or its "
        "labels. What is given takes the place of all that was there; what is not stays as it "
        "is.\n\n"
        "A new network is in force when this returns, for running commands too; open connections "
        "that it forbids are cut.",
        group=WORKSPACES,
        examples=[
            (
                "let it reach a package index",
                "cove update demo --network pypi.org --network files.pythonhosted.org",
            ),
            ("every public web server", "cove update demo --network '*:80,443'"),
            ("nothing any more", "cove update demo --no-network"),
            ("keep it for two days, from when it was made", "cove update demo --ttl 2d"),
        ],
        status=FOLLOWED,
    )
    workspace(update)
    _network(update)
    update.add_argument("--no-network", action="store_true", help="nothing can be reached")
    _life(update)
    update.add_argument("--no-ttl", action="store_true", help="keep it until it is removed")
    update.add_argument("--no-idle-timeout", action="store_true", help="never suspend it")
    update.add_argument(
        "-l", "--label", action="append", default=[], metavar="K=V", help="all its labels"
    )


def _watch(commands: Commands) -> None:
    watch = commands.add(
        "watch",
        "watching:watch",
        "follow all workspaces as they change",
        description="Show all workspaces, and each change as it comes, until Ctrl-C. At a terminal "
        "that is a table; elsewhere a line for each workspace and for each change that can be "
        "seen; with --json an object for each write: `put` has the workspace, `delete` what is "
        "gone for good, `snapshotEnd` says that all there are were told.\n\n"
        "When the gateway or the registry is away for a moment, it goes on where it was. "
        "Revisions say where: --from resumes a watch that has ended.",
        group=WORKSPACES,
        examples=[
            ("a table that is always right", "cove watch"),
            (
                "names as they change, for a program",
                "cove watch --json | jq -r '.put.workspace.name // empty'",
            ),
        ],
        status="130 after Ctrl-C, 1 when the gateway stays away, 2 for a wrong command line.",
    )
    watch.add_argument("-a", "--all", action="store_true", help="also deleted ones")
    _filter(watch)
    watch.add_argument(
        "--from",
        type=int,
        default=0,
        dest="revision",
        metavar="REVISION",
        help="only what changed after it",
    )


def _suspend(commands: Commands) -> None:
    suspend = commands.add(
        "suspend",
        "workspaces:suspend",
        "end the sandboxes of workspaces; their files stay",
        description="End the sandbox of a workspace, until `cove resume`. All its files stay, also "
        "those in its home. It runs no commands meanwhile, and can be looked at, committed, "
        "forked and removed.\n\n"
        "While something runs it is refused. With --force, commands get SIGTERM, and SIGKILL "
        "after 5 s.",
        group=WORKSPACES,
        examples=[
            ("for the night", "cove suspend demo"),
            ("whatever runs in it", "cove suspend --force demo"),
        ],
        status=FOLLOWED,
    )
    workspace(suspend, nargs="+")
    suspend.add_argument("-f", "--force", action="store_true", help="end what runs")
    resume = commands.add(
        "resume",
        "workspaces:resume",
        "let suspended workspaces run commands again",
        group=WORKSPACES,
        examples=[("go on", "cove resume demo")],
        status=FOLLOWED,
    )
    workspace(resume, nargs="+")


def _filter(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--filter",
        default="",
        metavar="EXPRESSION",
        help="only those it selects, as in: state = READY AND labels.team = x",
    )


def _rm(commands: Commands) -> None:
    rm = commands.add(
        "rm",
        "workspaces:rm",
        "remove workspaces; unsaved work is kept for a while",
        description="Kill every process of a workspace, and remove it. Uncommitted changes that "
        "are not ignored, and commits that are nowhere else, are kept for a day (see `cove show`), "
        "and so is the id; `cove undelete` brings both back. With --force nothing is kept.",
        group=WORKSPACES,
        examples=[
            ("remove one", "cove rm demo"),
            ("two, with all that is in them", "cove rm --force demo other"),
            ("in a script that may run twice", "cove rm --allow-missing demo"),
        ],
        status="0 if all are gone, 1 at the first that could not be removed, 2 for a wrong "
        "command line.",
    )
    workspace(rm, nargs="+")
    rm.add_argument("-f", "--force", action="store_true", help="keep nothing, and free the id")
    rm.add_argument("--allow-missing", action="store_true", help="a missing one is no error")
