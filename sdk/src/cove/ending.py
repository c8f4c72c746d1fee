"""The end of a command, in words."""

from typing import Final

from cove.executor.v1.executor_pb2 import Exit

_LIMITS: Final = {
    Exit.Limited.WHICH_MEMORY: "the limit of memory",
    Exit.Limited.WHICH_PIDS: "the limit of processes",
    Exit.Limited.WHICH_DISK: "the limit of the disk",
    Exit.Limited.WHICH_OUTPUT: "the limit of its output",
    Exit.Limited.WHICH_CPU: "the limit of processor time",
}


def limit(end: Exit) -> str:
    """Which limit ended it, or which timeout; empty for another end."""
    match end.WhichOneof("reason"):
        case "timed_out":
            idle = end.timed_out.which == Exit.TimedOut.WHICH_IDLE_OUTPUT
            return "its timeout of silence" if idle else "its timeout"
        case "limit":
            return _LIMITS.get(end.limit.which, "a limit")
        case _:
            return ""


def remarks(end: Exit) -> list[str]:
    """What befell it that its end does not tell."""
    said = []
    if (killed := end.usage.oom_kills) and end.limit.which != Exit.Limited.WHICH_MEMORY:
        were = "was" if killed == 1 else "were"
        said.append(f"{killed} of its processes {were} killed for lack of memory")
    if (refused := end.usage.forks_refused) and end.limit.which != Exit.Limited.WHICH_PIDS:
        often = "once" if refused == 1 else f"{refused} times"
        said.append(f"a further process was refused to it {often}: the limit of processes")
    return said
