"""Why a workspace is FAILED, over gRPC and over HTTP, compared."""

from typing import Any

import pytest
from google.protobuf import json_format

from cove.gateway.v1 import gateway_pb2 as pb
from tests.errors.lost import LOST, SLOW
from tests.errors.page import promises
from tests.errors.test_reasons import TRACES
from tests.errors.world import Doors, Try, World


@pytest.mark.parametrize(
    "reason",
    [pytest.param(name, marks=[pytest.mark.long] if name in SLOW else []) for name in LOST],
)
async def test_why_a_workspace_is_failed_is_told_alike_at_both_doors(
    world: World, reason: str
) -> None:
    async with LOST[reason](Try(world=world, door=world.doors.grpc)) as (doors, name):
        request = pb.GetWorkspaceRequest(name=name)
        failure = (await doors.grpc.call("GetWorkspace", request)).workspace.failure
        assert failure.reason == f"ERROR_REASON_{reason}"
        assert failure.message
        assert failure.remedy
        assert promises()[reason].told == "in `failure`"
        assert await over_http(doors, name) == json_format.MessageToDict(failure)
        for text in (*world.private, *TRACES):
            assert text not in str(failure)
        for door in doors:
            refused = await door.ask("ListFiles", pb.ListFilesRequest(name=name, path="."))
            assert (refused.reason, refused.metadata["state"]) == ("WORKSPACE_NOT_READY", "FAILED")
            assert refused.remedy


async def over_http(doors: Doors, name: str) -> Any:
    """The failure of a workspace, as JSON."""
    headers = {"authorization": f"Bearer {doors.http.token}"}
    answer = await doors.http.client.get(f"/{name}", headers=headers)
    return answer.json()["failure"]
