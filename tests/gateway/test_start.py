"""A gateway that cannot start says why in one line."""

import asyncio
import sys
from pathlib import Path


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
