"""What the agent answers to each request."""

import errno
import os
import time

from agent import formats, frames
from agent.inside import files, system
from agent.inside import input as inputs
from agent.inside.commands import Commands, refuse
from agent.inside.connection import Connection
from agent.inside.following import Follower
from agent.inside.held import Held, starts, subject
from agent.inside.helpers import Helpers
from agent.inside.limits import Processes, parse
from agent.inside.listing import alive, executions
from agent.inside.means import OPEN_STARTS, wanted_of
from agent.inside.paths import OutsideError
from agent.inside.ports import connecting
from agent.inside.redaction import NONE, Secrets, taken
from agent.inside.spawn import SEPARATE, SpawnError
from agent.inside.tree import processes
from agent.inside.wayout import WayOut

_FRESH = 2.0
"""Seconds in which whoever had it started comes with a command."""
_ABOUT_ONE = (frames.SIGNAL, frames.CANCEL, frames.EXCEEDED, *inputs.REQUESTS)
"""Requests about what runs."""


class Requests:
    """Answers requests, and remembers who waits for what."""

    def __init__(self, allowed: Processes) -> None:
        self.commands = Commands(allowed)
        self.removals: dict[int, tuple[Connection, int]] = {}
        """Processes of ours that remove directories, and who waits for them."""
        self.helpers = Helpers()
        self.follower = Follower(allowed.rlimit)
        self.held = Held()
        self.way_out = WayOut()
        self.leaving: list[tuple[Connection, int, int | None]] = []
        """Who wants this to end, if nothing runs; or has run for so many milliseconds."""
        self._began = time.monotonic()

    def receive(
        self, client: Connection, kind: int, number: int, payload: bytes, fds: list[int]
    ) -> None:
        """As `answer`, but what starts a command waits until the git inside has followed."""
        about, request = subject(kind, payload), (client, kind, number, payload, fds)
        waits = self.held.has(about) or (starts(kind) and self.follower.look(again=True))
        if not (waits and self.held.add(about, request, time.monotonic())):
            self.answer(*request)

    def answer(
        self, client: Connection, kind: int, number: int, payload: bytes, fds: list[int]
    ) -> None:
        """Do what is asked and reply; never raises. Closes descriptors that nobody took."""
        try:
            fields = frames.unpack(payload)
            if kind == frames.HELLO:
                client.reply(frames.OK, number, b"")
            elif kind in OPEN_STARTS or kind in (frames.START, frames.START_SECRETLY):
                limited = self.commands.limits.take(client, fields[0])
                terms, wanted = (_secrets(kind, fields, 1), limited), wanted_of(kind, fields)
                self.commands.start((client, number), fields, fds, terms, wanted)
            elif kind == frames.PREPARE:
                self.commands.prepared.add(client, number, fields, fds)
            elif kind == frames.FORGET:
                self.commands.prepared.forget(fields[0])
                client.reply(frames.OK, number, b"")
            elif kind in (frames.RUN, frames.RUN_SECRETLY):
                limited = self.commands.limits.take(client, fields[1])
                terms = _secrets(kind, fields, 2), limited
                self.commands.run(client, number, fields, terms)
            elif kind == frames.LIMITS:
                self.commands.limits.add(client, fields[0], parse(fields[1:]))
                client.reply(frames.OK, number, b"")
            elif kind in _ABOUT_ONE and fields[0] in self.commands.becoming:
                self.commands.becoming[fields[0]].later.append((client, kind, number, payload))
            elif kind == frames.SIGNAL:
                self._signal(client, number, fields)
            elif kind == frames.CANCEL:
                self._end(client, number, formats.EXIT_CANCELLED, fields)
            elif kind == frames.EXCEEDED:
                self._end(client, number, formats.EXIT_LIMITED, fields)
            elif kind in inputs.REQUESTS:
                found = self.commands.find(fields[0]).input
                inputs.answer(found, (client, number), kind, fields[1:], time.monotonic())
            elif kind == frames.LEAVE:
                self.leaving.append((client, number, int(fields[0]) if fields else None))
            elif kind == frames.LIST:
                client.reply(frames.OK, number, self._list())
            elif kind == frames.PROCESSES:
                known = self.commands.executions
                asked = [known[each] for each in fields or known if each in known]
                client.reply(frames.OK, number, frames.pack(*alive(asked)))
            elif kind == frames.CONNECT:
                client.reply(frames.OK, number, b"", connecting(*fields))
            elif kind == frames.REMOVE:
                self._remove(client, number, fields)
            elif kind in files.KINDS:
                client.reply(frames.OK, number, b"", files.answer(kind, fields))
            elif kind == frames.LISTEN:
                client.reply(frames.OK, number, b"", self.way_out.open(int(fields[0])))
            elif kind == frames.CLOSE_LISTENER:
                self.way_out.close()
                client.reply(frames.OK, number, b"")
            elif not self.helpers.answer(client, kind, number, fields, fds):
                refuse(client, number, frames.BAD_REQUEST, 0, "unknown request")
        except SpawnError as error:
            refuse(client, number, error.code, error.errno, str(error))
        except OutsideError:
            refuse(client, number, frames.PATH_OUTSIDE, 0, "the path leads out of the workspace")
        except OSError as error:
            refuse(client, number, frames.OS_ERROR, error.errno or 0, error.strerror or "failed")
        except (ValueError, IndexError, OverflowError):
            refuse(client, number, frames.BAD_REQUEST, errno.EINVAL, "malformed request")
        except Exception as error:  # An error of ours must not end every command here.
            os.write(2, f"{type(error).__name__}: {error}\n"[:500].encode())
            refuse(client, number, frames.OS_ERROR, errno.EIO, "the agent failed")
        finally:
            for fd in fds:
                os.close(fd)

    def leave(self, quiet: float) -> bool:
        """Tell who wants this to end whether it does: it must, if it is so.

        Nothing has run for `quiet` seconds; who asks for more gets told how many milliseconds.
        """
        if not self.leaving:
            return False
        idle = self._idle()
        quiet_ms = int(quiet * 1000) if idle else 0
        ends = False
        for client, number, wanted in self.leaving:
            leaves = idle and quiet_ms >= (wanted or 0)
            told = (int(leaves),) if wanted is None else (int(leaves), quiet_ms)
            client.reply(frames.OK, number, frames.pack(*told))
            ends = ends or leaves
        self.leaving.clear()
        return ends

    def _idle(self) -> bool:
        """Whether nothing runs, or is to; without a descriptor to spare nobody knows."""
        fresh = not self.commands.executions and time.monotonic() < self._began + _FRESH
        if fresh or self.commands.busy or self.held.deadline():
            return False
        try:
            return not processes().keys() - self.commands.prepared.pids()
        except OSError:
            return False

    def go_on(self, now: float) -> None:
        """See how far those are that become a command, and let go what waits no longer."""
        for request in self.held.due(now, busy=self.follower.pid != 0):
            self.answer(*request)
        self.commands.limits.drop_orphans(self.held)
        for each in self.commands.go_on(now):
            for later in each.later:
                self.answer(*later, [])

    def _signal(self, client: Connection, number: int, fields: list[bytes]) -> None:
        execution = self.commands.find(fields[0])
        signal, scope = int(fields[1]), int(fields[2])
        if execution.ended and not execution.tree.members():
            raise SpawnError(frames.EXECUTION_NOT_FOUND, 0, "nothing of it is left")
        if scope == frames.TREE and signal == system.SIGKILL:
            execution.waiting.append((client, number))
            execution.kill(time.monotonic())
            return
        if scope == frames.TREE:
            execution.tree.signal(signal)
        elif not execution.running:
            group = execution.group if scope == frames.GROUP else 0
            if not (group and execution.tree.signal(signal, group)):
                raise SpawnError(frames.EXECUTION_NOT_FOUND, 0, "the execution has ended")
        elif scope == frames.GROUP:
            os.killpg(execution.pid, signal)
        else:
            os.kill(execution.pid, signal)
        client.reply(frames.OK, number, b"")

    def _end(self, client: Connection, number: int, kind: int, fields: list[bytes]) -> None:
        """End an execution, and say why in its exit; answered when it is over."""
        execution_id, why, grace = fields
        execution = self.commands.find(execution_id)
        execution.stop(kind, why, int(grace) / 1000, time.monotonic())
        execution.waiting.append((client, number))

    def _list(self) -> bytes:
        # Without a beginning, as they may fail to; not as ended, as earlier clients read that.
        becoming = [field for each in self.commands.becoming for field in (each, 0, 0, 0, 0)]
        rows = executions(self.commands.executions.values())
        ours = self.commands.prepared.pids() | self.helpers.pids
        return frames.pack(len(processes().keys() - ours), *becoming, *rows)

    def _remove(self, client: Connection, number: int, fields: list[bytes]) -> None:
        path, recursive = fields
        pid = files.removing(path, recursive=recursive != b"0")
        if pid:
            self.removals[pid] = (client, number)
        else:
            client.reply(frames.OK, number, b"")


def _secrets(kind: int, fields: list[bytes], at: int) -> Secrets:
    """Those of a start, taken out of its fields."""
    if kind in (frames.START, frames.RUN, frames.START_OPEN):
        return NONE
    if not SEPARATE:
        raise SpawnError(frames.UNPROTECTED, 0, "other commands could read them")
    return taken(fields, at)
