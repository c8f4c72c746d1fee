"""The event loop of services that start no processes.

uvloop costs a good part less for each call, and refuses `process_group`, by which what a service
starts is kept from the signals of a terminal; so who starts processes has Python's own.
"""

import asyncio


def fast() -> asyncio.AbstractEventLoop:
    """uvloop's where that is installed, else Python's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
