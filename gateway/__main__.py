"""Runs the gateway: `python -m gateway`."""

import resource
import sys

from gateway.app import gateway
from gateway.config import Config
from servicekit import loops
from servicekit.main import main

if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # One for each connection.
    sys.exit(main(Config.from_env, gateway, loops.fast))
