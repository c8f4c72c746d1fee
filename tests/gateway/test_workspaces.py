"""Reading and updating workspaces."""

import uuid

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from cove.gateway.v1 import gateway_pb2 as pb
from cove.provider.v1.provider_pb2 import Capabilities
from tests.gateway.stage import Gateway, Stage
from tests.servicekit.failing import failure

DEMO = "workspaces/demo"


async def test_workspaces_are_listed_in_pages(stage: Stage, gateway: Gateway) -> None:
    for name in ("c", "a", "b"):
        await gateway.workspaces.CreateWorkspace(stage.create(name))
    request = pb.ListWorkspacesRequest(page_size=2)
    first = await gateway.workspaces.ListWorkspaces(request)
    assert [each.name for each in first.workspaces] == ["workspaces/a", "workspaces/b"]
    request.page_token = first.next_page_token
    second = await gateway.workspaces.ListWorkspaces(request)
    assert [each.name for each in second.workspaces] == ["workspaces/c"]
    assert not second.next_page_token
    request.page_token = "tampered"
    failed = await failure(gateway.workspaces.ListWorkspaces(request))
    assert failed.reason == "PAGE_TOKEN_INVALID"


async def test_labels_and_annotations_can_be_updated(stage: Stage, gateway: Gateway) -> None:
    request = stage.create()
    request.workspace.labels["team"] = "a"
    request.workspace.annotations["note"] = "x"
    made = (await gateway.workspaces.CreateWorkspace(request)).workspace
    change = pb.Workspace(name=DEMO, labels={"team": "b"}, etag=made.etag)
    update = pb.UpdateWorkspaceRequest(workspace=change, request_id=str(uuid.uuid4()))
    updated = (await gateway.workspaces.UpdateWorkspace(update)).workspace
    assert dict(updated.labels) == {"team": "b"}
    assert dict(updated.annotations) == {"note": "x"}
    assert (await gateway.workspaces.UpdateWorkspace(update)).workspace == updated
    update.request_id = ""
    stale = await failure(gateway.workspaces.UpdateWorkspace(update))
    assert stale.code is grpc.StatusCode.ABORTED
    assert stale.reason == "ETAG_MISMATCH"


async def test_an_update_without_a_field_changes_nothing(stage: Stage, gateway: Gateway) -> None:
    made = (await gateway.workspaces.CreateWorkspace(stage.create())).workspace
    update = pb.UpdateWorkspaceRequest(workspace=pb.Workspace(name=DEMO))
    assert (await gateway.workspaces.UpdateWorkspace(update)).workspace == made


async def test_an_update_of_no_name_is_refused(stage: Stage, gateway: Gateway) -> None:
    for name in ("", "workspaces/", "workspaces/No-Label", "environments/demo"):
        update = pb.UpdateWorkspaceRequest(workspace=pb.Workspace(name=name, labels={"a": "b"}))
        failed = await failure(gateway.workspaces.UpdateWorkspace(update))
        assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
        assert failed.reason == "INVALID_FIELD"


async def test_a_mask_can_clear_a_field(stage: Stage, gateway: Gateway) -> None:
    request = stage.create()
    request.workspace.labels["team"] = "a"
    await gateway.workspaces.CreateWorkspace(request)
    update = pb.UpdateWorkspaceRequest(
        workspace=pb.Workspace(name=DEMO), update_mask=FieldMask(paths=["labels"])
    )
    assert not (await gateway.workspaces.UpdateWorkspace(update)).workspace.labels


async def test_no_other_field_can_be_updated(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    for path in ("state", "spec.repository", "handle", "*"):
        update = pb.UpdateWorkspaceRequest(
            workspace=pb.Workspace(name=DEMO), update_mask=FieldMask(paths=["labels", path])
        )
        failed = await failure(gateway.workspaces.UpdateWorkspace(update))
        assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
        assert failed.reason == "FIELD_IMMUTABLE"
        assert failed.info.metadata["field"] == path


async def test_what_this_installation_can_do_is_told(stage: Stage, gateway: Gateway) -> None:
    answer = await gateway.workspaces.GetCapabilities(pb.GetCapabilitiesRequest())
    assert answer.provider.isolation != Capabilities.ISOLATION_UNSPECIFIED
    assert answer.provider.default_driver == "local"
    assert answer.version
