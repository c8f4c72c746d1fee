"""What all tests stand on."""

import signal

import pytest

from tests.attacks.git.report import pytest_terminal_summary  # noqa: F401 - a hook.
from tests.support import failures


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Interrupts work, also where a shell started the tests in the background, without them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    failures.register(config)
