"""Runs the executor: `python -m services.executor`."""

import sys

from servicekit.main import main
from services.executor.app import executor
from services.executor.config import Config

if __name__ == "__main__":
    sys.exit(main(Config.from_env, executor))
