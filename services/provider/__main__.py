"""Runs provider: `python -m services.provider`."""

import sys

from servicekit.main import main
from services.provider.app import provider
from services.provider.config import Config

if __name__ == "__main__":
    sys.exit(main(Config.from_env, provider))
