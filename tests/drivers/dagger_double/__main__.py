"""`session` is the doubled CLI; `engine FOLDER SOCKET [--cold] [--layers N]` the doubled engine."""

import argparse
import sys
from pathlib import Path


def main() -> int:
    if sys.argv[1:2] == ["session"]:
        from tests.drivers.dagger_double.cli import session

        return session()
    from tests.drivers.dagger_double import engine

    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["engine"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("socket", type=Path)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--layers", type=int, default=440)
    options = parser.parse_args()
    return engine.main(options.folder, options.socket, cold=options.cold, layers=options.layers)


if __name__ == "__main__":
    sys.exit(main())
