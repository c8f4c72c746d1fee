"""What all tests stand on."""

import signal


def pytest_configure() -> None:
    """Interrupts work, also where a shell started the tests in the background, without them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
