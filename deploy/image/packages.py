"""Prints the packages that a dependency group of pyproject.toml names: what an image holds.

Standard library only, as it runs before anything is installed; pip before 25.1 knows no groups.
"""

import sys
import tomllib
from pathlib import Path

if __name__ == "__main__":
    groups = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["dependency-groups"]
    sys.stdout.writelines(f"{each}\n" for each in groups[sys.argv[1]])
