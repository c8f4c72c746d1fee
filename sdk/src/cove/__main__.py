"""The command `cove`: `python -m cove`."""

import sys

from cove.cli import main

if __name__ == "__main__":
    sys.exit(main())
