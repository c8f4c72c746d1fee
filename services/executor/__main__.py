"""Runs the executor: `python -m services.executor`."""

import resource
import sys

from servicekit.main import main
from services.executor.app import executor
from services.executor.config import Config

if __name__ == "__main__":
    # Run by an ordinary user, commands are that user too: what they may send each other must not
    # be more than what we may.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.exit(main(Config.from_env, executor))
