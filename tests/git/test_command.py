"""The git command line: nothing a caller sends can become an option."""

import subprocess
from pathlib import Path

import pytest

from services.git.command import Command, Where, git, together

WHERE = Where(git_dir="/x")


def test_values_follow_the_end_of_options() -> None:
    command = git(WHERE, "fetch", ["--prune"], values=["--upload-pack=x"])
    assert command.argv[-2:] == ("--end-of-options", "--upload-pack=x")


def test_paths_follow_two_dashes() -> None:
    assert git(WHERE, "diff", paths=["--output=x"]).argv[-2:] == ("--", "--output=x")


@pytest.mark.parametrize("name", ["cat-file", "rev-parse", "commit-tree", "upload-pack"])
def test_commands_without_that_rule_take_no_value_that_looks_like_an_option(name: str) -> None:
    with pytest.raises(ValueError, match="value"):
        git(WHERE, name, values=["--output=x"])


def test_only_known_commands_are_run() -> None:
    with pytest.raises(KeyError):
        git(WHERE, "gc")


def test_the_environment_is_built_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "x")
    monkeypatch.setenv("LD_PRELOAD", "x")
    env = git(WHERE, "status").env
    assert "LD_PRELOAD" not in env
    assert "GIT_EXTERNAL_DIFF" not in env
    assert env["GIT_CONFIG_NOSYSTEM"] == "1"
    count = int(env["GIT_CONFIG_COUNT"])
    settings = {env[f"GIT_CONFIG_KEY_{n}"]: env[f"GIT_CONFIG_VALUE_{n}"] for n in range(count)}
    assert settings["protocol.allow"] == "never"
    assert settings["core.hooksPath"] == "/dev/null"


def test_commands_of_one_cell_get_their_arguments_as_they_are(tmp_path: Path) -> None:
    words = ["$(touch x)", "a b", "'", '"', "\n", "*", "; touch x", "-x", "${1}"] + ["w"] * 10
    first = Command(name="one", argv=("printf", "%s\\0", *words), env={"PATH": "/usr/bin:/bin"})
    last = Command(name="two", argv=("printf", "%s", "end"), env=first.env)
    both = together(first, last)
    done = subprocess.run(both.argv, env=both.env, cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.decode() == "".join(f"{word}\0" for word in words) + "end"
    assert not list(tmp_path.iterdir())


def test_a_command_that_fails_is_the_last_of_its_cell() -> None:
    false = Command(name="false", argv=("false",), env={"PATH": "/usr/bin:/bin"})
    echo = Command(name="echo", argv=("echo", "x"), env=false.env)
    both = together(false, echo)
    done = subprocess.run(both.argv, env=both.env, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_commands_of_one_cell_have_one_environment() -> None:
    with pytest.raises(ValueError, match="environment"):
        together(git(WHERE, "version"), git(Where(git_dir="/y"), "version"))
