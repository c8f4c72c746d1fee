"""The token of the first user."""

import re
from pathlib import Path

import pytest

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
