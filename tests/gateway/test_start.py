"""A gateway that cannot start says why in one line."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.app import gateway
from gateway.config import Config
from servicekit.config import ConfigError


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("RECONCILE_INTERVAL", "0", "must be more than 0"),
        ("ACTIVITY_INTERVAL", "0s", "must be more than 0"),
        ("PROGRESS_INTERVAL", "0", "must be more than 0"),
        ("LEASE", "0", "must be more than 0"),
        ("CREATE_LIMIT", "0", "must be more than 0"),
        ("OPERATION_LIMIT", "0", "must be more than 0"),
        ("READ_RATE", "-1", "not a whole number of 0 or more"),
        ("OPEN_CALLS", "-1", "not a whole number of 0 or more"),
        ("STRANGER_RATE", "-5", "not a whole number of 0 or more"),
    ],
)
def test_numbers_by_which_nothing_could_work_are_told(
    tmp_path: Path, name: str, value: str, said: str
) -> None:
    """A look that is never over, a lease that nobody can hold, a limit that no call is below."""
    env = {"COVE_STATE": str(tmp_path), "COVE_RUNTIME": str(tmp_path)}
    with pytest.raises(ConfigError, match=f"COVE_GATEWAY__{name}: {said}"):
        Config.from_env(env | {f"COVE_GATEWAY__{name}": value})


async def test_a_name_that_dns_cannot_have_is_one_that_is_not_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tools: dict[str, Any] = {
        tool: f"unix:{tmp_path}/{{node}}/{tool}" for tool in ("git", "provider", "executor")
    }
    nodes = (f"dns:{'a' * 70}.test", "dns:..")
    config = Config(state=tmp_path, runtime=tmp_path / "r", nodes=nodes, no_auth=True, **tools)
    async with gateway(config):
        assert "the nodes cannot be looked up" in caplog.text


async def test_a_runtime_that_is_no_directory_is_told(tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    runtime.write_text("")
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway"),
        env={"COVE_STATE": str(tmp_path / "state"), "COVE_RUNTIME": str(runtime)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await running.communicate()
    assert running.returncode == 1
    last = told.decode().splitlines()[-1]
    assert last == f"{runtime}/audit: Not a directory; set COVE_RUNTIME"
