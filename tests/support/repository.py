"""Repositories made at run time."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path


def git(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Run git on a repository with nobody's configuration; returns what it prints."""
    clean = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
    }
    return subprocess.run(
        ["git", *arguments], cwd=folder, env={**clean, **(env or {})}, check=True,
        capture_output=True, text=True,
    ).stdout  # fmt: skip


def make_repository(folder: Path, files: Mapping[str, str] | None = None) -> str:
    """Make a repository with one commit on `main`; returns the id of the commit."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    for name, content in (files or {"README.md": "hello\n", "src/main.py": "print(1)\n"}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=First")
    return git(folder, "rev-parse", "HEAD").strip()
