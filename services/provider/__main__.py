"""Runs provider: `python -m services.provider`."""

import resource
import sys

from servicekit.main import main
from services.provider.app import provider
from services.provider.config import Config

if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # Some for each call.
    sys.exit(main(Config.from_env, provider))
