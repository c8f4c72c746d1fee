"""Who a sandbox is outside, where the launcher is root."""

import os
from typing import Final

from agent import KEEPER_UID, SANDBOX_UID

_LEAST: Final = 1000


def user_of(workspace: str) -> int:
    """The owner of its worktree, which nobody inside can change; else the one of all others."""
    try:
        owner = os.lstat(workspace).st_uid if workspace else SANDBOX_UID
    except OSError:  # That is told by who binds it.
        return SANDBOX_UID
    return SANDBOX_UID if owner < _LEAST or owner == KEEPER_UID else owner
