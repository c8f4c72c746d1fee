"""The git command line: nothing a caller sends can become an option."""

import pytest

from services.git.command import Where, git

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
