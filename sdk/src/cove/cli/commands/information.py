"""`cove health capabilities`, and `cove help version completion`."""

from typing import Final

from cove.cli.commands.arguments import FOLLOWED
from cove.cli.parser import SERVER, Commands

_GROUP: Final = "Help"


def add(commands: Commands) -> None:
    """Add the sub-commands of this module."""
    commands.add(
        "health",
        "information:health",
        "ask all services how they are",
        description="Ask every service how it is: those of the gateway, and on the machine of "
        "`cove up`, as its user, also those behind it. `cove doctor` tells what ails them.",
        group=SERVER,
        examples=[("wait for a suite to be up", "until cove health > /dev/null; do sleep 1; done")],
        status="0 if all serve, 1 if not, 2 for a wrong command line.",
    )
    commands.add(
        "capabilities",
        "information:capabilities",
        "show what this installation can enforce",
        description="Show by what sandboxes are isolated here, by what each limit is enforced, and "
        "what to do where something is not.",
        group=SERVER,
        examples=[("what is enforced", "cove capabilities")],
        status=FOLLOWED,
    )
    commands.add(
        "version",
        "information:version",
        "show the versions of this command and of the gateway",
        group=_GROUP,
        examples=[("for a report", "cove version")],
        status="0, also when no gateway answers.",
    )


def add_help(commands: Commands) -> None:
    """Add those that need to know the others. They come last."""
    completion = commands.add_local(
        "completion",
        "completion:script",
        "print a script that has a shell complete commands",
        description="Print a script for a shell to evaluate. It completes sub-commands, options "
        "and files, and asks the gateway for the ids of workspaces and executions; where none "
        "answers at once, there are none to offer.",
        group=_GROUP,
        examples=[
            ("in ~/.bashrc", 'eval "$(cove completion bash)"'),
            ("in ~/.zshrc", 'eval "$(cove completion zsh)"'),
            ("for fish", "cove completion fish > ~/.config/fish/completions/cove.fish"),
        ],
        status=FOLLOWED,
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    named = commands.add_parser(
        "help",
        help="show what a command does",
        group=_GROUP,
        examples=[("the same as cove exec --help", "cove help exec")],
        status="0, or 2 when there is no such command.",
    )
    named.add_argument(
        "topic", nargs="?", choices=sorted([*commands.parsers]), metavar="COMMAND", help="which one"
    )
