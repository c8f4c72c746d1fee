"""What a client says to an agent, as fields of a request, and what it makes of the answers."""

from datetime import timedelta

from agent import frames
from agent.messages import Command, Listing, Process, Processes, Running, Sinks


def descriptors(sinks: Sinks) -> list[int]:
    return [sinks.log, sinks.result, *(sinks.unified or ()), *sinks.cgroup_procs]


def limits(command: Command) -> tuple[bytes | int, ...]:
    return (
        to_bytes(command.cwd),
        int(command.merge_stderr),
        milliseconds(command.timeout),
        milliseconds(command.idle_output_timeout),
        milliseconds(command.grace),
    )


def program(command: Command) -> tuple[bytes | int, ...]:
    env = [key.encode() + b"=" + to_bytes(value) for key, value in command.env.items()]
    return len(command.argv), *map(to_bytes, command.argv), *env


def input_of(command: Command) -> tuple[int, ...]:
    """Nothing where the command has no input."""
    if command.terminal:
        return (frames.TERMINAL, command.terminal.rows, command.terminal.cols)
    return (frames.PIPE, 0, 0) if command.stdin else ()


def secrets(command: Command) -> tuple[bytes | int, ...]:
    """Nothing where there are none."""
    pairs = [f"{key}={value}".encode() for key, value in command.secrets.items()]
    return (int(command.redact), len(pairs), *pairs) if pairs else ()


def to_bytes(value: str | bytes) -> bytes:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def milliseconds(duration: timedelta | None) -> int:
    return 0 if duration is None else max(1, duration // timedelta(milliseconds=1))


def listing(fields: list[bytes]) -> Listing:
    """Raises ValueError, IndexError for what is no such answer."""
    rows = [fields[at : at + 5] for at in range(1, len(fields), 5)]
    running = tuple(
        Running(row[0].decode(), row[1] != b"0", int(row[2]), int(row[3]), int(row[4]))
        for row in rows
    )
    return Listing(int(fields[0]), running)


def processes(fields: list[bytes]) -> dict[str, Processes]:
    """By execution. Raises ValueError, IndexError for what is no such answer."""
    found = {}
    at = 0
    while at < len(fields):
        key, total, count = fields[at].decode(), int(fields[at + 1]), int(fields[at + 2])
        end = at + 3 + 5 * count
        if not 0 <= count <= total or end > len(fields):
            raise ValueError("not a list of processes")
        rows = (fields[each : each + 5] for each in range(at + 3, end, 5))
        found[key] = Processes(total, tuple(map(_process, rows)))
        at = end
    return found


def _process(row: list[bytes]) -> Process:
    pid, state, memory, start, command = row
    return Process(int(pid), state.decode("ascii")[:1], int(memory), int(start), command)
