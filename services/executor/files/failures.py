"""What a caller is told when the system refuses something about a file."""

import errno
from typing import Final

from agent.client import AgentError, ErrorCode
from servicekit.errors import InvalidArgument, ServiceError
from services.executor.errors import (
    AgentUnavailable,
    DirectoryNotEmpty,
    FileExists,
    FileNotFound,
    FilePermission,
    NoSpace,
    PathOutside,
    PathTooLong,
    WrongFileType,
)

_MISSING: Final = (errno.ENOENT, errno.ELOOP)
_WRONG: Final = (errno.EISDIR, errno.ENXIO, errno.ENOTDIR, errno.ENODEV)
_FORBIDDEN: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.ETXTBSY)
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMLINK)


def failure(error: AgentError | OSError, path: str) -> ServiceError | None:
    """None when it is nothing that a caller could have caused."""
    if isinstance(error, AgentError) and error.code is ErrorCode.PATH_OUTSIDE:
        return PathOutside("path", "leads out of the workspace", path=path)
    number = error.errno
    if number in _MISSING:
        return FileNotFound("nothing is there", path=path)
    if number in _WRONG:
        return WrongFileType("not of the kind needed", path=path)
    if number in _FORBIDDEN:
        return FilePermission("permissions forbid it", path=path)
    if number in _FULL:
        return NoSpace("no space is left", path=path)
    if number == errno.EEXIST:
        return FileExists("something is there", path=path)
    if number == errno.ENOTEMPTY:
        return DirectoryNotEmpty("the directory is not empty", path=path)
    if number == errno.ENAMETOOLONG:
        return PathTooLong("path", "too long", path=path)
    if number == errno.EXDEV:
        return PathOutside("new_path", "not in the same part of the workspace", path=path)
    if number == errno.ETOOMANYREFS:
        return AgentUnavailable("too many descriptors are on their way", path=path)
    if number == errno.EINVAL:
        return InvalidArgument("path", "not possible with this path", path=path)
    if isinstance(error, AgentError):
        return AgentUnavailable("the agent failed at it", path=path, cause=str(error))
    return None
