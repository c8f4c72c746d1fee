"""What can go wrong with an engine, and the one table that tells it from what the engine says.

Only a failed command has a type of its own in the engine's answers. Everything else is text, so it
is matched, here and nowhere else; what nothing matches is a defect.

    DaggerFailure
     ├ EngineUnavailable   no CLI, or one that cannot be used: retrying does not help
     ├ EngineLost          the session or the engine went away: another session may do
     ├ HandleStale         the container is not there any more, or is another's: make it anew
     ├ HandleBehind        the environment has gone on since that handle
     ├ HandleInvalid       not a handle of ours
     ├ CommandLost         a command was killed together with what it wrote
     ├ SetupFailed         a command of the setup failed
     ├ ImageNotFound, ImageDenied
     ├ PathNotFound
     ├ TooManyLayers       what the kernel mounts is exhausted: make it anew
     ├ EngineFull
     └ EngineDefect        all else
"""

import re
from collections.abc import Mapping
from typing import Any, Final


class DaggerFailure(Exception):
    """Base. The message goes to a caller: no secret, no path of this machine."""

    remedy = ""


class EngineUnavailable(DaggerFailure):
    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class EngineLost(DaggerFailure):
    pass


class HandleStale(DaggerFailure):
    pass


class HandleBehind(DaggerFailure):
    """`generation` is the one in force."""

    def __init__(self, generation: int) -> None:
        super().__init__("the environment has gone on since")
        self.generation = generation


class HandleInvalid(DaggerFailure):
    pass


class CommandLost(DaggerFailure):
    """`code` is 128 and the signal. The environment is as it was before the command."""

    def __init__(self, message: str, code: int, output: bytes = b"", errors: bytes = b"") -> None:
        super().__init__(message)
        self.code = code
        self.output = output
        """The end of what it wrote, as far as the engine tells."""
        self.errors = errors


class SetupFailed(DaggerFailure):
    remedy = "Mend the setup; this is what it wrote last."

    def __init__(self, message: str, code: int, tail: str) -> None:
        super().__init__(message)
        self.code = code
        self.tail = tail


class ImageNotFound(DaggerFailure):
    remedy = "Check the name; the image needs /bin/sh."


class ImageDenied(DaggerFailure):
    remedy = "Give the engine credentials for the registry, or make the image public."


class PathNotFound(DaggerFailure):
    pass


class TooManyLayers(DaggerFailure):
    pass


class EngineFull(DaggerFailure):
    pass


class EngineDefect(DaggerFailure):
    pass


_TABLE: Final[tuple[tuple[str, type[DaggerFailure]], ...]] = (
    (r"server shutting down|engine is shutting down", EngineLost),
    (r"waiting for client session attachables", EngineLost),
    (r"session .*(not found|removed|closed)|no active sessions", EngineLost),
    (r"connection (refused|reset)|unexpected EOF|transport is closing", EngineLost),
    (r"missing shared result|shared result .* (not found|missing)", HandleStale),
    (r"cannot use internal argument|invalid (object )?id|failed to (decode|parse) id", HandleStale),
    (r"expected .* got .*id|type mismatch.*id", HandleStale),
    (r"no space left on device|disk quota exceeded|metadata budget", EngineFull),
    (r"mount options is too long|too many levels of|max.* layers", TooManyLayers),
    (r"failed to mount.*invalid argument|invalid argument.*mount", TooManyLayers),
    (r"manifest unknown|name unknown|repository does not exist", ImageNotFound),
    (r"(failed to resolve|pull|image).*not found", ImageNotFound),
    (r"pull access denied|authorization failed|unauthorized|denied: ", ImageDenied),
    (r"failed to resolve .*(lookup|dial|timeout|i/o)|dial tcp", EngineLost),
    (r"no such file or directory|does not exist", PathNotFound),
)
_COMPILED: Final = tuple(
    (re.compile(text, re.IGNORECASE | re.DOTALL), kind) for text, kind in _TABLE
)
_MOST: Final = 400


def failure(message: str, extensions: Mapping[str, Any] | None = None) -> DaggerFailure:
    """What an error in the engine's answer means."""
    found = extensions or {}
    if found.get("_type") == "EXEC_ERROR":
        return CommandLost(
            message[:_MOST],
            int(found.get("exitCode", -1)),
            str(found.get("stdout", "")).encode(),
            str(found.get("stderr", "")).encode(),
        )
    for pattern, kind in _COMPILED:
        if pattern.search(message):
            if kind is EngineUnavailable:
                break
            return kind(message[:_MOST])
    return EngineDefect(message[:_MOST])
