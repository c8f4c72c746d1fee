"""The token of the first user."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from servicekit.config import ConfigError
from services.registry import token
from services.registry.app import registry
from services.registry.config import Config


async def test_the_first_start_makes_a_token_that_later_ones_keep(config: Config) -> None:
    async with registry(config):
        text = config.token_path.read_text()
    assert config.token_path == config.state / "registry" / "token"
    assert re.fullmatch(r"cove_[A-Za-z0-9_-]{43}\n", text)
    assert config.token_path.stat().st_mode & 0o777 == 0o600
    config.token_path.chmod(0o644)
    async with registry(config):
        assert config.token_path.read_text() == text
        assert config.token_path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in config.token_path.parent.glob(".token*")] == []


def test_the_token_is_never_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    token.ensure(tmp_path / "token")
    secret = (tmp_path / "token").read_text().strip()
    out, err = capfd.readouterr()
    assert secret not in out + err


async def test_a_token_that_was_given_is_left_as_it_is(config: Config, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_text("mine\n")
    given.chmod(0o400)
    async with registry(replace(config, token_file=given)):
        assert given.read_text() == "mine\n"
        assert given.stat().st_mode & 0o777 == 0o400
        assert not config.token_path.exists()


async def test_what_cannot_be_the_token_is_told_at_the_start(
    config: Config, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    for path, told in ((tmp_path / "folder", "not a file"), (Path("/proc/none/token"), "No such")):
        with pytest.raises(ConfigError, match=f"^{path.parent}.*: {told}"):
            async with registry(replace(config, token_file=path)):
                pass
