"""What all tests stand on."""

import signal

from tests.attacks.git.report import pytest_terminal_summary  # noqa: F401 - a hook.


def pytest_configure() -> None:
    """Interrupts work, also where a shell started the tests in the background, without them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
