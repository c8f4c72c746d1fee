"""`cove exec logs ps wait kill forward`."""

import argparse
import signal
from typing import Final

from cove.cli import completers
from cove.cli.commands.arguments import FOLLOWED, completed, execution, seconds, size, workspace
from cove.cli.parser import Commands

_GROUP: Final = "Commands"
_TAIL: Final = 64 << 10
_ENDED: Final = (
    "the command's; 128+n after signal n, 124 after its timeout, 137 after a limit, 255 when its "
    "end was lost; 1 when Cove fails, 2 for a wrong command line."
)


def add(commands: Commands) -> None:
    """Add the sub-commands of this module."""
    _exec(commands)
    logs = commands.add(
        "logs",
        "running:logs",
        "write the output of an execution",
        description="Write what a command wrote, to the standard output and the standard error as "
        "it did, byte for byte, whether it runs or has ended. What is no longer kept is told as "
        "such.",
        group=_GROUP,
        examples=[
            ("all of it so far", "cove logs demo build"),
            ("from the last 4 KiB on, until it ends", "cove logs -f --tail 4096 demo build"),
        ],
        status="of a command that has ended the command's, as of `cove exec`; 0 if it runs still.",
    )
    workspace(logs)
    execution(logs)
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the command ends")
    logs.add_argument("--from", type=int, default=0, dest="offset", help="byte to begin at")
    logs.add_argument("--tail", type=int, default=0, metavar="BYTES", help="only the last bytes")
    ps = commands.add(
        "ps",
        "running:ps",
        "list the executions of a workspace, and what is alive of them",
        description="List the executions of a workspace, and below them the processes that are "
        "alive: those of commands that run, and those that ended commands left behind.",
        group=_GROUP,
        examples=[
            ("what runs, and what ran", "cove ps demo"),
            ("what failed", "cove ps demo --filter 'exit.code != 0'"),
            ("the newest first", "cove ps demo --order-by 'create_time desc'"),
        ],
        status=FOLLOWED,
    )
    workspace(ps)
    ps.add_argument(
        "--filter",
        default="",
        metavar="EXPRESSION",
        help="only those it selects, as in: state = RUNNING",
    )
    ps.add_argument(
        "--order-by",
        default="",
        metavar="ORDER",
        help="name or create_time, each with ' desc' or without",
    )
    wait = commands.add(
        "wait",
        "running:wait",
        "wait for the end of an execution",
        description="Wait for the end of an execution, and exit as it does.",
        group=_GROUP,
        examples=[("after `cove exec --detach`", "cove wait demo build")],
        status=_ENDED,
    )
    workspace(wait)
    execution(wait)
    _kill(commands)
    _attach(commands)
    _forward(commands)


def _exec(commands: Commands) -> None:
    run = commands.add(
        "exec",
        "running:execute",
        "run a command; its output, and its exit status",
        usage="cove exec [OPTION ...] WORKSPACE [OPTION ...] [--] COMMAND [ARGUMENT ...]",
        description="Run a command in a workspace, write its output as it comes, and exit as it "
        "does. No shell is involved unless --script is used. Everything after the first word of "
        "the command is the command's own, dashes and all; `--` is needed only where that word "
        "begins with a dash.\n\n"
        "The command is the workspace's: it goes on when this one is cut off, its output stays "
        "readable, and with the same --id it runs only once, however often it is asked for. The "
        "first Ctrl-C goes to the command, the second one leaves it running. A reader of the "
        "output that goes away, as in `cove exec ... | head`, ends the command.\n\n"
        "The standard input is passed on with -i. Without, it is not read, so that `while read` "
        "loops keep theirs; what waits in a pipe or a file there is told with a warning, and "
        "`< /dev/null` says that nothing is meant. With -it the command has a terminal, and every "
        "key is its own but those that leave it running, Ctrl-P Ctrl-Q; `cove attach` comes back.",
        group=_GROUP,
        examples=[
            ("the same as with docker", "cove exec -w src -e CI=1 demo make test"),
            ("options of the command need no care", "cove exec demo ls -la --color"),
            (
                "a line of shell, ten minutes at most",
                "cove exec --timeout 10m demo --script 'a | b'",
            ),
            (
                "what may not take more than it should",
                "cove exec --memory 512MiB --pids 64 --output-limit 1MiB demo make test",
            ),
            ("a script of many lines", 'cove exec demo --script "$(cat build.sh)"'),
            ("a shell, on a terminal", "cove exec -it demo bash"),
            ("data through a pipe", "tar c src | cove exec -i demo tar x"),
            ("in the background, only once", "cove exec --detach --id build demo make"),
        ],
        status=_ENDED.replace(
            "137", "127 and 126 when the program is not found or not executable, 137"
        ),
    )
    run.takes_command = True
    workspace(run)
    completed(
        run.add_argument("argv", nargs="*", help="program and arguments", metavar="COMMAND"),
        completers.nothing,
    )
    run.add_argument("-i", "--interactive", action="store_true", help="pass the standard input on")
    run.add_argument("-t", "--tty", action="store_true", help="run it on a terminal")
    _detach_keys(run)
    run.add_argument("--script", default="", help="text for `sh -c`, instead of a command")
    run.add_argument("--id", default="", help="id of the execution; the same id runs it only once")
    run.add_argument(
        "-w", "--cwd", "--workdir", default="", metavar="DIR", help="where; default the worktree"
    )
    run.add_argument("-e", "--env", action="append", default=[], metavar="K=V", help="a variable")
    run.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="NAME[=@FILE]",
        help="a variable that no other command can read: from this environment, or a file",
    )
    run.add_argument(
        "--kept-secret",
        action="append",
        default=[],
        metavar="NAME",
        help="the same, of which the server keeps the value",
    )
    run.add_argument(
        "--redact", action="store_true", help="record *** where the command writes a secret"
    )
    run.add_argument("--timeout", type=seconds, metavar="TIME", help="30, 30s, 5m; default 1h")
    run.add_argument(
        "--idle-timeout", type=seconds, metavar="TIME", help="end it after so long without output"
    )
    run.add_argument(
        "--output-limit",
        type=size,
        default=0,
        metavar="SIZE",
        help="end it after so much output: 512KiB, 10MiB",
    )
    limits = run.add_argument_group("limits of this command alone").add_argument
    limits("--memory", type=size, default=0, metavar="SIZE", help="memory: 512MiB, 2GiB")
    limits("--pids", type=int, default=0, metavar="N", help="processes and threads")
    limits(
        "--cpu",
        "--cpus",
        dest="cpus",
        type=float,
        default=0,
        metavar="N",
        help="processors: 0.5, 2",
    )
    limits("--cpu-time", type=seconds, metavar="TIME", help="processor time; then it is ended")
    limits("--open-files", type=int, default=0, metavar="N", help="descriptors of each process")
    run.add_argument("--merge-stderr", action="store_true", help="stderr as stdout, in exact order")
    run.add_argument("-d", "--detach", action="store_true", help="print the id, and do not wait")


def _attach(commands: Commands) -> None:
    attach = commands.add(
        "attach",
        "attaching:attach",
        "sit before an execution: its output, and its input",
        description="See what a command writes, and write to it, as with `cove exec -it`, from any "
        "number of places. One at a time writes; the others look on. Ctrl-P Ctrl-Q leaves it "
        "running.",
        group=_GROUP,
        examples=[
            ("a shell from `cove exec -itd --id shell demo bash`", "cove attach demo shell"),
            ("look over somebody's shoulder", "cove attach --read-only demo shell"),
            ("take the keys from who has them", "cove attach --take-over demo shell"),
        ],
        status=_ENDED.replace("128+n", "0 when it is left, 128+n"),
    )
    workspace(attach)
    execution(attach)
    attach.add_argument("--read-only", action="store_true", help="only look on")
    attach.add_argument("--take-over", action="store_true", help="write, whoever does now")
    attach.add_argument(
        "--tail", type=int, default=_TAIL, metavar="BYTES", help="begin so far before the end"
    )
    _detach_keys(attach)


def _detach_keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--detach-keys",
        type=_keys,
        default=_keys("ctrl-p,ctrl-q"),
        metavar="KEYS",
        help="what leaves a terminal; default ctrl-p,ctrl-q; none for nothing",
    )


def _keys(text: str) -> bytes:
    if text == "none":
        return b""
    found = bytearray()
    for key in text.split(","):
        letter = key.lower().removeprefix("ctrl-")
        control = len(letter) < len(key)
        if (
            len(letter) != 1
            or not letter.isascii()
            or (control and not "@" <= letter.upper() <= "_")
        ):
            raise argparse.ArgumentTypeError(f"{text} is not like ctrl-p,ctrl-q")
        found.append(ord(letter.upper()) & 0x1F if control else ord(key))
    return bytes(found)


def _kill(commands: Commands) -> None:
    kill = commands.add(
        "kill",
        "running:kill",
        "send a signal to an execution",
        description="Send a signal to a command: to its process, to its process group, or to all "
        "that it started, also what has gone into the background.",
        group=_GROUP,
        examples=[
            ("ask it to end", "cove kill demo build"),
            ("end all of it", "cove kill -s KILL --scope tree demo build"),
        ],
        status=FOLLOWED,
    )
    workspace(kill)
    execution(kill)
    completed(
        kill.add_argument(
            "-s", "--signal", type=_signal, default=signal.SIGTERM, help="default TERM"
        ),
        completers.signals,
    )
    kill.add_argument("--scope", choices=("process", "group", "tree"), default="group")


def _forward(commands: Commands) -> None:
    forward = commands.add(
        "forward",
        "forwarding:forward",
        "reach ports of a workspace from this machine",
        description="Listen on 127.0.0.1 of this machine, and connect whoever comes to a port of "
        "the workspace's own localhost, also when it has no network. It goes on until Ctrl-C.",
        group=_GROUP,
        examples=[
            ("a server in the workspace, under the same port", "cove forward demo 8000"),
            ("another port here, and any free one", "cove forward demo 9000:8000 0:5432"),
        ],
        status=FOLLOWED,
    )
    workspace(forward)
    completed(
        forward.add_argument(
            "ports", nargs="+", metavar="[LOCAL:]PORT", help="a port inside, and where it is here"
        ),
        completers.nothing,
    )


def _signal(text: str) -> signal.Signals:
    known = completers.signals()
    name = text.upper().removeprefix("SIG")
    try:
        found = signal.Signals(int(text)) if text.isdecimal() else signal.Signals[f"SIG{name}"]
    except (ValueError, KeyError):
        found = None
    if found is None or found.name.removeprefix("SIG") not in known:
        raise argparse.ArgumentTypeError(f"{text} is not one of {' '.join(known)}")
    return found
