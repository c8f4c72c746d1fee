"""What all tests stand on."""

import gc
import signal
from collections.abc import Iterator

import pytest

import servicekit  # noqa: F401 - sets what gRPC reads when it is first imported; else forks die.
from tests.attacks.git.report import pytest_terminal_summary  # noqa: F401 - a hook.
from tests.support import failures
from tests.support.groups import Launchers


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Interrupts work, also where a shell started the tests in the background, without them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    failures.register(config)
    gc.disable()  # Until all tests are there.


def pytest_collection_finish() -> None:
    """Thousands of tests are there for good: no collection looks through them."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def launchers() -> Iterator[None]:
    """The last to end: no launcher of this run leaves a control group."""
    started = Launchers()
    started.listen()
    yield
    left = started.left()
    assert not left, "\n".join(left)
