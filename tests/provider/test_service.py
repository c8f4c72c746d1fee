"""ProviderService, called as the gateway calls it, over a real launcher."""

import asyncio
import shutil
from pathlib import Path

import grpc
import pytest

from agent.protocol import Mode
from cove.errors.v1.errors_pb2 import ErrorReason
from cove.provider.v1 import provider_pb2 as pb
from servicekit.status import reason
from tests.agent.node import Box, Node, new_uid, python
from tests.provider.conftest import Suite, serving


async def refused(call: object) -> ErrorReason.ValueType:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return reason(caught.value)


def box(suite: Suite, uid: str) -> Box:
    tree = suite.state / "git" / "worktrees" / uid / "tree"
    return Box(suite.node, uid, tree, suite.node.runtime / "a" / uid)


async def test_capabilities_are_what_was_probed(suite: Suite) -> None:
    found = (await suite.stub.GetCapabilities(pb.GetCapabilitiesRequest())).capabilities
    assert (found.node, found.default_driver, found.remedy) == ("n1", "local", "")
    kinds = {
        Mode.ROOT: pb.Capabilities.ISOLATION_NAMESPACES_ROOT,
        Mode.USER: pb.Capabilities.ISOLATION_NAMESPACES_USER,
    }
    assert found.isolation == kinds[Mode(suite.node.mode)]
    assert found.processes != pb.Capabilities.LIMIT_METHOD_UNSPECIFIED


async def test_an_environment_lives_from_provision_to_release(suite: Suite) -> None:
    uid = new_uid()
    handle = await suite.provisioned(uid)
    inspect = pb.InspectEnvironmentRequest(handle=handle)
    found = (await suite.stub.InspectEnvironment(inspect)).observation
    assert (found.uid, found.state) == (uid, pb.Observation.STATE_DORMANT)
    activate = pb.ActivateEnvironmentRequest(handle=handle)
    assert (await suite.stub.ActivateEnvironment(activate)).started
    assert not (await suite.stub.ActivateEnvironment(activate)).started
    done = await box(suite, uid).run(
        "sh", "-c", "echo x > f; echo y > ~/h; cat .git/HEAD; touch .git/x; ls -d /.cove/objects"
    )
    assert done.stdout == b"ref: refs/heads/main\n/.cove/objects\n"
    assert b"Read-only" in done.stderr
    found = (await suite.stub.InspectEnvironment(inspect)).observation
    assert found.state == pb.Observation.STATE_ACTIVE
    assert found.activate_time.ToSeconds() > 0
    release = pb.ReleaseEnvironmentRequest(uid=uid)
    assert (await suite.stub.ReleaseEnvironment(release)).existed
    assert not (await suite.stub.ReleaseEnvironment(release)).existed
    assert not (suite.state / "provider" / "environments" / uid).exists()
    assert (suite.state / "git" / "worktrees" / uid / "tree" / "f").read_text() == "x\n"
    assert await refused(suite.stub.ActivateEnvironment(activate)) == (
        ErrorReason.ERROR_REASON_NOT_PROVISIONED
    )


async def test_home_and_tmp_stay_while_dormant(suite: Suite) -> None:
    uid = new_uid()
    handle = await suite.provisioned(uid)
    activate = pb.ActivateEnvironmentRequest(handle=handle)
    await suite.stub.ActivateEnvironment(activate)
    await box(suite, uid).run("sh", "-c", "echo home > ~/f; echo tmp > /tmp/f")
    async with suite.node.launcher() as launcher:
        assert await launcher.kill(uid)
    assert (await suite.stub.ActivateEnvironment(activate)).started
    done = await box(suite, uid).run("cat", "/home/cove/f", "/tmp/f")
    assert done.stdout == b"home\ntmp\n"
    await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))


async def test_release_removes_what_is_deep_and_locked(suite: Suite) -> None:
    uid = new_uid()
    handle = await suite.provisioned(uid)
    await suite.stub.ActivateEnvironment(pb.ActivateEnvironmentRequest(handle=handle))
    deep = (
        "import os\n"
        "for base in ('/tmp', '/home/cove'):\n"
        "    os.chdir(base)\n"
        "    for _ in range(2500):\n"
        "        os.mkdir('dd')\n"
        "        os.chdir('dd')\n"
        "    open('file', 'w').close()\n"
        "    os.chmod('.', 0)\n"
        "    os.chmod(base, 0)\n"
    )
    done = await box(suite, uid).run(*python(deep))
    assert done.result.number == 0, done.stderr
    assert (await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))).existed
    assert not (suite.state / "provider" / "environments" / uid).exists()


async def test_provisioning_again_is_the_same_and_otherwise_refused(suite: Suite) -> None:
    uid = new_uid()
    handle = await suite.provisioned(uid)
    assert await suite.provisioned(uid) == handle
    assert await refused(suite.provisioned(uid, processes=7)) == (
        ErrorReason.ERROR_REASON_PROVISIONED_DIFFERENTLY
    )
    await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("worktree", "/etc"),
        ("worktree", "git/worktrees/{uid}/../../../../etc"),
        ("worktree", "git/worktrees/{other}/tree"),
        ("worktree", "git/worktrees/{uid}/link"),
        ("worktree", "git/worktrees/{uid}/none"),
        ("worktree", ""),
        ("git_view", "git/repositories/t/k.git/objects"),
        ("objects", "git/worktrees/{uid}/tree"),
        ("objects", "provider"),
    ],
)
async def test_a_mount_that_leads_elsewhere_is_refused(suite: Suite, field: str, path: str) -> None:
    uid, other = new_uid(), new_uid()
    suite.worktree(other)
    mount = suite.worktree(uid)
    (suite.state / "git" / "worktrees" / uid / "link").symlink_to("/etc")
    setattr(mount, field, path.format(uid=uid, other=other))
    request = pb.ProvisionEnvironmentRequest(uid=uid, mount=mount)
    assert await refused(suite.stub.ProvisionEnvironment(request)) == (
        ErrorReason.ERROR_REASON_INVALID_FIELD
    )
    assert not (suite.state / "provider" / "environments" / uid).exists()


@pytest.mark.parametrize("handle", [b"x", b"\xff\x00", b"bG9jYWw"])
async def test_a_handle_that_is_none_is_refused(suite: Suite, handle: bytes) -> None:
    for call in (
        suite.stub.ActivateEnvironment(pb.ActivateEnvironmentRequest(handle=handle)),
        suite.stub.InspectEnvironment(pb.InspectEnvironmentRequest(handle=handle)),
    ):
        assert await refused(call) == ErrorReason.ERROR_REASON_HANDLE_INVALID


async def test_specs_are_completed_or_refused(suite: Suite) -> None:
    found = (await suite.stub.ValidateSpec(pb.ValidateSpecRequest())).spec
    assert (found.driver, found.limits.processes) == ("local", 4096)
    unknown = pb.ValidateSpecRequest(spec=pb.Spec(driver="moon"))
    assert await refused(suite.stub.ValidateSpec(unknown)) == (
        ErrorReason.ERROR_REASON_DRIVER_UNKNOWN
    )
    limited = pb.ValidateSpecRequest(spec=pb.Spec(limits=pb.Limits(memory_bytes=1 << 30)))
    capabilities = (await suite.stub.GetCapabilities(pb.GetCapabilitiesRequest())).capabilities
    if capabilities.memory:
        assert (await suite.stub.ValidateSpec(limited)).spec.limits.memory_bytes == 1 << 30
    else:
        assert await refused(suite.stub.ValidateSpec(limited)) == (
            ErrorReason.ERROR_REASON_CAPABILITY_MISSING
        )


async def test_the_list_pages_and_shows_what_is_broken(suite: Suite) -> None:
    uids = sorted(new_uid() for _ in range(3))
    for uid in uids[:2]:
        await suite.provisioned(uid)
    (suite.state / "provider" / "environments" / uids[2]).mkdir()
    found: dict[str, int] = {}
    token = ""
    while True:
        request = pb.ListProvisionedRequest(page_size=1, page_token=token)
        page = await suite.stub.ListProvisioned(request)
        found |= {each.uid: each.state for each in page.observations}
        token = page.next_page_token
        if not token:
            break
    assert [uid for uid in found if uid in uids] == uids
    assert found[uids[2]] == pb.Observation.STATE_BROKEN
    for uid in uids:
        assert (await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))).existed


async def test_limits_are_enforced(suite: Suite) -> None:
    uid = new_uid()
    handle = await suite.provisioned(uid, processes=20)
    await suite.stub.ActivateEnvironment(pb.ActivateEnvironmentRequest(handle=handle))
    script = "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; wait"
    done = await box(suite, uid).run("sh", "-c", script)
    assert b"fork" in done.stderr
    await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))


async def test_a_worktree_that_is_gone_is_told_at_activation(suite: Suite) -> None:
    uid = new_uid()
    handle = await suite.provisioned(uid)
    shutil.rmtree(suite.state / "git" / "worktrees" / uid)
    assert await refused(
        suite.stub.ActivateEnvironment(pb.ActivateEnvironmentRequest(handle=handle))
    ) in (ErrorReason.ERROR_REASON_ACTIVATION_FAILED, ErrorReason.ERROR_REASON_INVALID_FIELD)
    await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))


async def test_without_a_launcher_everything_is_unavailable_and_comes_back(own_node: Node) -> None:
    async with serving(own_node) as suite:
        uid = new_uid()
        handle = await suite.provisioned(uid)
        activate = pb.ActivateEnvironmentRequest(handle=handle)
        assert (await suite.stub.ActivateEnvironment(activate)).started
        own_node.kill()
        assert await refused(suite.stub.ActivateEnvironment(activate)) == (
            ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE
        )
        own_node.start()
        async with own_node.launcher():
            assert not (await suite.stub.ActivateEnvironment(activate)).started
        assert (await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))).existed


async def test_a_host_without_sandboxes_refuses_with_the_remedy(own_node: Node) -> None:
    own_node.stop()
    broken = Path(own_node.folder) / "bwrap"
    broken.write_text(
        "#!/bin/sh\n[ $1 = --version ] && echo bubblewrap 0.11.0 && exit\n"
        "echo 'bwrap: No permissions to create new namespace' >&2; exit 1\n"
    )
    broken.chmod(0o755)
    own_node.arguments = ("--bwrap", str(broken))
    own_node.start()
    async with serving(own_node) as suite:
        uid = new_uid()
        assert await refused(suite.provisioned(uid)) == (
            ErrorReason.ERROR_REASON_SANDBOX_UNAVAILABLE
        )
        found = (await suite.stub.GetCapabilities(pb.GetCapabilitiesRequest())).capabilities
        assert found.isolation == pb.Capabilities.ISOLATION_UNSPECIFIED
        assert "No permissions" in found.remedy
        assert not (suite.state / "provider" / "environments" / uid).exists()


async def test_many_first_callers_share_one_probe(own_node: Node) -> None:
    async with serving(own_node) as suite:
        request = pb.ValidateSpecRequest(spec=pb.Spec())
        answers = await asyncio.gather(*(suite.stub.ValidateSpec(request) for _ in range(10)))
        assert {each.spec.driver for each in answers} == {"local"}


async def test_several_providers_probe_at_once(own_node: Node) -> None:
    async with own_node.launcher() as first, own_node.launcher() as second:
        probes = [client.probe() for client in (first, second, first, second)]
        facts = await asyncio.gather(*probes)
        assert len({each.mode for each in facts}) == 1
        assert not await first.list()


@pytest.mark.long
async def test_more_starts_than_the_launcher_has_connections_are_all_made(suite: Suite) -> None:
    uids = [new_uid() for _ in range(80)]
    handles = [await suite.provisioned(uid) for uid in uids]
    activate = [pb.ActivateEnvironmentRequest(handle=handle) for handle in handles]
    made = await asyncio.gather(*(suite.stub.ActivateEnvironment(each) for each in activate))
    assert all(each.started for each in made)
    release = [pb.ReleaseEnvironmentRequest(uid=uid) for uid in uids]
    await asyncio.gather(*(suite.stub.ReleaseEnvironment(each) for each in release))
