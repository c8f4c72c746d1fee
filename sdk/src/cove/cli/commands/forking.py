"""`cove fork snapshot snapshots`."""

from cove.cli.commands.arguments import FOLLOWED, WORKSPACES, workspace
from cove.cli.parser import Commands


def add(commands: Commands) -> None:
    """Add the sub-commands of this module."""
    _fork(commands)
    _snapshots(commands)


def _fork(commands: Commands) -> None:
    fork = commands.add(
        "fork",
        "forking:fork",
        "make a workspace as another one is now; prints its id",
        description="Make a workspace as another one is now, or as a snapshot of it was: with its "
        "commits, on a branch cove/ID, with uncommitted and ignored files. Its home and /tmp are "
        "empty. Neither sees the other after that.\n\n"
        "While a command runs in the other one, it is frozen until what differs is copied; else "
        "nothing is copied, however much there is.",
        group=WORKSPACES,
        examples=[
            ("try something else from here", "cove fork demo attempt"),
            ("ten attempts", "for n in $(seq 10); do cove fork demo try-$n; done"),
            ("from where it was", "cove fork demo again --snapshot green"),
        ],
        status=FOLLOWED,
    )
    workspace(fork)
    fork.add_argument("id", nargs="?", default="", metavar="ID", help="of the new one")
    fork.add_argument("--snapshot", default="", metavar="ID", help="as this snapshot of it was")
    fork.add_argument("-l", "--label", action="append", default=[], metavar="K=V", help="a label")


def _snapshots(commands: Commands) -> None:
    snapshot = commands.add(
        "snapshot",
        "forking:snapshot",
        "keep a workspace as it is now; prints the snapshot's id",
        description="Keep the files and the commits of a workspace as they are now, to fork from. "
        "As `cove fork`, it copies nothing unless a command runs. It goes with the workspace; "
        "with --rm it is removed.",
        group=WORKSPACES,
        examples=[
            ("before something that may go wrong", "cove snapshot demo green"),
            ("forget it", "cove snapshot demo green --rm"),
        ],
        status=FOLLOWED,
    )
    workspace(snapshot)
    snapshot.add_argument("id", nargs="?", default="", metavar="ID", help="of the snapshot")
    snapshot.add_argument("--rm", action="store_true", help="remove it")
    snapshots = commands.add(
        "snapshots",
        "forking:snapshots",
        "list the snapshots of a workspace",
        group=WORKSPACES,
        examples=[("what there is to fork from", "cove snapshots demo")],
        status=FOLLOWED,
    )
    workspace(snapshots)
