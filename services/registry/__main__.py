"""Runs the registry: `python -m services.registry`."""

import sys

from servicekit import loops
from servicekit.main import main
from services.registry.app import registry
from services.registry.config import Config

if __name__ == "__main__":
    sys.exit(main(Config.from_env, registry, loops.fast))
