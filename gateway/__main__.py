"""Runs the gateway: `python -m gateway`."""

import sys

from gateway.app import gateway
from gateway.config import Config
from servicekit import loops
from servicekit.main import main

if __name__ == "__main__":
    sys.exit(main(Config.from_env, gateway, loops.fast))
