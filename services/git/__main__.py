"""Runs git: `python -m services.git`."""

import sys

from servicekit.main import main
from services.git.app import git
from services.git.config import Config

if __name__ == "__main__":
    sys.exit(main(Config.from_env, git))
