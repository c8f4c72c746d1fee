"""Environments whose worktree is an overlay."""

import json
import os

import grpc
import pytest

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.mount.v1 import mount_pb2
from cove.provider.v1 import provider_pb2 as pb
from servicekit.status import reason
from tests.agent.node import Box, Node, new_uid
from tests.provider.conftest import Suite, serving

Mount = mount_pb2.Mount


async def refusal(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return caught.value


def box(suite: Suite, uid: str) -> Box:
    home = suite.state / "git" / "worktrees" / uid
    return Box(suite.node, uid, home, suite.node.runtime / "a" / uid)


async def activated(suite: Suite, uid: str, mount: Mount) -> bytes:
    handle = await suite.provisioned(uid, mount)
    await suite.stub.ActivateEnvironment(pb.ActivateEnvironmentRequest(handle=handle))
    return handle


async def test_it_is_written_above_and_lives_until_release(suite: Suite) -> None:
    uid = new_uid()
    handle = await activated(suite, uid, suite.layers(uid))
    script = "cat d/f /.cove/git/head; ls -d /.cove/objects; echo upper > d/f; touch /.cove/git/x"
    done = await box(suite, uid).run("sh", "-c", script, cwd="/workspace")
    assert done.stdout == b"lower\n{}/.cove/objects\n"
    assert b"Read-only" in done.stderr
    home = suite.state / "git" / "worktrees" / uid
    assert (home / "upper" / "d" / "f").read_text() == "upper\n"
    assert await suite.provisioned(uid, suite.layers(uid)) == handle
    release = pb.ReleaseEnvironmentRequest(uid=uid)
    assert (await suite.stub.ReleaseEnvironment(release)).existed
    assert (home / "upper" / "d" / "f").read_text() == "upper\n"


async def test_a_stack_may_change_between_activations(suite: Suite) -> None:
    uid = new_uid()
    handle = await activated(suite, uid, suite.layers(uid))
    home = suite.state / "git" / "worktrees" / uid
    await box(suite, uid).run("sh", "-c", "echo upper > d/f", cwd="/workspace")
    async with suite.node.launcher() as launcher:
        await launcher.kill(uid)
    layer = new_uid()
    (suite.state / "git" / "layers").mkdir(exist_ok=True)
    (home / "upper").rename(suite.state / "git" / "layers" / layer)
    (home / "stack").write_text(f"{layer}\n")
    activate = pb.ActivateEnvironmentRequest(handle=handle)
    error = await refusal(suite.stub.ActivateEnvironment(activate))
    assert reason(error) == ErrorReason.ERROR_REASON_ACTIVATION_FAILED
    assert "git was interrupted" in str(error.trailing_metadata())
    (home / "upper").mkdir()
    os.chown(home / "upper", suite.node.sandbox_uid, suite.node.sandbox_uid)
    await suite.stub.ActivateEnvironment(activate)
    assert (await box(suite, uid).run("cat", "/workspace/d/f")).stdout == b"upper\n"
    await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))


async def test_a_plain_worktree_of_version_2_has_its_own_git(suite: Suite) -> None:
    uid = new_uid()
    first, second = suite.worktree(uid), suite.layers(uid)
    tree = suite.state / "git" / "worktrees" / uid / "tree"
    (tree / ".git").chmod(0o777)
    mount = Mount(
        version=2,
        mode=Mount.MODE_PLAIN,
        worktree=first.worktree,
        objects=first.objects,
        lock=second.lock,
        outside=second.outside,
    )
    await activated(suite, uid, mount)
    done = await box(suite, uid).run("sh", "-c", "echo x > .git/x; cat /.cove/git/head")
    assert done.stdout == b"{}"
    assert (tree / ".git" / "x").read_text() == "x\n"
    await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("upper", "/etc"),
        ("upper", "git/worktrees/{uid}"),
        ("upper", "git/worktrees/{uid}/"),
        ("upper", "git/worktrees/{uid}/../{uid}/upper"),
        ("upper", "git/worktrees/{other}/upper"),
        ("upper", "git/worktrees/{uid}/link"),
        ("upper", "git/worktrees/{uid}/lock"),
        ("upper", "git/worktrees/{uid}/none"),
        ("upper", ""),
        ("work", "git/worktrees/{other}/work"),
        ("work", "git/worktrees/{uid}/link"),
        ("work", ""),
        ("lock", "git/worktrees/{uid}/upper"),
        ("lock", "git/worktrees/{uid}/locklink"),
        ("lock", "git/worktrees/{other}/lock"),
        ("lock", "git/worktrees/{uid}/none"),
        ("lock", ""),
        ("outside", "git/worktrees/{other}/outside"),
        ("outside", "git/worktrees/{uid}/link"),
        ("outside", "provider"),
        ("objects", "git/worktrees/{uid}/upper"),
        ("lowers", "provider"),
        ("lowers", "git/repositories/t/k.git/objects"),
        ("lowers", "git/checkouts"),
        ("lowers", "git/checkouts/"),
        ("lowers", "git/layers/none"),
        ("lowers", "git/worktrees/{uid}/link"),
        ("lowers", "git/checkouts/../../provider"),
        ("lowers", ""),
        ("stack", "git/worktrees/{uid}/upper"),
        ("stack", "git/worktrees/{uid}/locklink"),
        ("stack", "git/worktrees/{other}/stack"),
        ("stack", "git/layers/stack"),
        ("stack", ""),
        ("layers", "git/worktrees/{uid}"),
        ("layers", "git/checkouts"),
        ("layers", ""),
        ("worktree", "git/worktrees/{uid}/upper"),
        ("git_view", "git/worktrees/{uid}/upper"),
    ],
)
async def test_a_mount_that_leads_elsewhere_is_refused(suite: Suite, field: str, path: str) -> None:
    uid, other = new_uid(), new_uid()
    suite.layers(other)
    mount = suite.layers(uid)
    home = suite.state / "git" / "worktrees" / uid
    (home / "link").symlink_to(home / "upper")
    (home / "locklink").symlink_to(home / "lock")
    value = path.format(uid=uid, other=other)
    if path.endswith("none") and field == "upper":
        mount.ClearField("stack")
        mount.ClearField("layers")
    if field == "lowers":
        mount.lowers[:] = [value] if value else []
    else:
        setattr(mount, field, value)
    error = await refusal(suite.provisioned(uid, mount))
    assert reason(error) == ErrorReason.ERROR_REASON_INVALID_FIELD
    assert not (suite.state / "provider" / "environments" / uid).exists()


@pytest.mark.parametrize(
    "change",
    [{"version": 1}, {"version": 3}, {"mode": Mount.MODE_PLAIN}, {"xattrs": 0}, {"xattrs": 7}],
)
async def test_what_does_not_fit_together_is_refused(suite: Suite, change: dict[str, int]) -> None:
    uid = new_uid()
    mount = suite.layers(uid)
    for name, value in change.items():
        setattr(mount, name, value)
    error = await refusal(suite.provisioned(uid, mount))
    assert reason(error) == ErrorReason.ERROR_REASON_INVALID_FIELD


async def test_more_layers_than_can_be_are_refused(suite: Suite) -> None:
    uid = new_uid()
    mount = suite.layers(uid)
    mount.lowers.extend(list(mount.lowers) * 64)
    error = await refusal(suite.provisioned(uid, mount))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_marks_of_the_other_kind_are_refused_with_the_remedy(suite: Suite) -> None:
    uid = new_uid()
    mount = suite.layers(uid)
    kinds = {Mount.XATTRS_TRUSTED, Mount.XATTRS_USER}
    mount.xattrs = (kinds - {mount.xattrs}).pop()
    error = await refusal(suite.provisioned(uid, mount))
    assert reason(error) == ErrorReason.ERROR_REASON_CAPABILITY_MISSING
    assert "attributes" in (error.details() or "")


async def test_a_record_of_the_version_before_is_read(own_node: Node) -> None:
    async with serving(own_node) as suite:
        uid = new_uid()
        handle = await suite.provisioned(uid)
        file = suite.state / "provider" / "environments" / uid / "record"
        record = json.loads(file.read_text())
        tree = record["worktree"]
        record["worktree"] = {name: tree[name] for name in ("tree", "git_view", "objects")}
        file.write_text(json.dumps({**record, "version": 1}))
        assert await suite.provisioned(uid) == handle
        activate = pb.ActivateEnvironmentRequest(handle=handle)
        assert (await suite.stub.ActivateEnvironment(activate)).started
        assert (await box(suite, uid).run("cat", "/workspace/.git/HEAD")).stdout
        await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))


async def test_an_upper_layer_replaced_by_a_symlink_is_told_at_activation(suite: Suite) -> None:
    uid = new_uid()
    handle = await suite.provisioned(uid, suite.layers(uid))
    home = suite.state / "git" / "worktrees" / uid
    (home / "upper").rename(home / "elsewhere")
    (home / "upper").symlink_to(home / "elsewhere")
    activate = pb.ActivateEnvironmentRequest(handle=handle)
    error = await refusal(suite.stub.ActivateEnvironment(activate))
    assert reason(error) == ErrorReason.ERROR_REASON_INVALID_FIELD
    await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=uid))
