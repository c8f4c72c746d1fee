"""What `cove` makes of failures: its exit status, and the same words."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest
from google.rpc import error_details_pb2

from tests.errors.cases import CASES
from tests.errors.test_reasons import TRACES
from tests.errors.world import Try, World

FAILED: Final = 1
REMEDIES: Final = {"WORKSPACE_NOT_FOUND", "WORKSPACE_EXISTS", "EXECUTION_NOT_FOUND"}
"""Of these the command line knows what to type."""


SHORT: Final = {"WORKSPACE_EXISTS", "PROGRAM_NOT_FOUND", "DRIVER_UNKNOWN", "UNAUTHENTICATED"}
"""What `make test` types; the others belong to `make test-long`."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A command whose call is refused as the one in the table is."""

    arguments: tuple[str, ...]
    status: int = FAILED
    who: str = ""
    """Whose token; empty: the first user's."""


SHARED: Final = "shared-grpc"
TYPED: Final[Mapping[str, Typed]] = {
    "WORKSPACE_NOT_FOUND": Typed(("show", "none")),
    "WORKSPACE_EXISTS": Typed(("create", "--id", "mine")),
    "PERMISSION_DENIED": Typed(("rm", "mine"), who="reader"),
    "SHARE_LIMITED": Typed(("show", "another"), who="share"),
    "FILTER_INVALID": Typed(("ls", "--filter", "state =")),
    "SNAPSHOT_NOT_FOUND": Typed(("fork", "mine", "--snapshot", "none")),
    "DRIVER_UNKNOWN": Typed(("create", "--driver", "none")),
    "PROGRAM_NOT_FOUND": Typed(("exec", SHARED, "--", "no-such-program"), status=127),
    "PROGRAM_NOT_EXECUTABLE": Typed(("exec", SHARED, "--", "/etc/passwd"), status=126),
    "CWD_NOT_FOUND": Typed(("exec", "--cwd", "no/such/place", SHARED, "--", "true")),
    "EXECUTION_NOT_FOUND": Typed(("logs", SHARED, "none")),
    "FILE_NOT_FOUND": Typed(("ls-files", SHARED, "none")),
    "UNAUTHENTICATED": Typed(("ls",), who="nobody"),
}


async def cove(world: World, typed: Typed, *more: str) -> tuple[int, str]:
    """Exit status, and what it says on standard error."""
    secrets = {"": world.doors.grpc.token, "nobody": "not-a-token", **world.secrets}
    first, *rest = typed.arguments
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "cove", first, *more, *rest),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": os.environ["PATH"],
            "COVE_ADDRESS": world.doors.address,
            "COVE_TOKEN": secrets[typed.who],
        },
    )
    _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.mark.parametrize(
    "reason",
    [pytest.param(each, marks=[] if each in SHORT else [pytest.mark.long]) for each in TYPED],
)
async def test_a_command_fails_with_the_reason_and_says_the_same(world: World, reason: str) -> None:
    typed = TYPED[reason]
    t = Try(world=world, door=world.doors.grpc)
    await t.shared()
    refused = await CASES[reason].provoke(t)
    status, said = await cove(world, typed, "--json")
    assert status == typed.status
    error = json.loads(said.splitlines()[-1])["error"]
    assert (error["code"], error["reason"]) == (refused.code.name, f"ERROR_REASON_{reason}")
    assert error["message"] == refused.status.message
    assert error["metadata"].keys() == refused.metadata.keys()
    bad = refused.detail(error_details_pb2.BadRequest)
    fields: list[Any] = [each.field for each in bad.field_violations] if bad else []
    assert [each["field"] for each in error["fields"]] == fields
    assert error["remedy"]
    assert error["requestId"]
    if reason not in REMEDIES | {"UNAUTHENTICATED"}:
        assert error["remedy"] == refused.remedy
    for text in (*world.private, *TRACES):
        assert text not in said


async def test_without_json_it_is_two_lines(world: World) -> None:
    status, said = await cove(world, TYPED["WORKSPACE_NOT_FOUND"])
    assert (status, said) == (
        FAILED,
        "error: no such workspace (name workspaces/none)\n"
        "remedy: `cove ls --all` lists the workspaces there are.\n",
    )
