"""The command `cove`."""

from cove.cli.main import main

__all__ = ["main"]
