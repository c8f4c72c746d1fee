"""A uid of its own for each tenant: what one that has left its namespaces cannot do to another."""

import json
import os
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from agent import SANDBOX_UID
from cove.client import Client
from cove.status import ResourceExhausted
from cove.workspace import Workspace
from tests.support.issuer import Issuer
from tests.support.repository import make_repository
from tests.support.suite import Suite, running_suite, until

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root gives sandboxes other uids"),
]

FIRST: Final = 61_000
SLEEP: Final = "the-sleep-of-{}"

SPY = """
import json, os, sys
uid, pid, descriptor = map(int, sys.argv[1:])
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
def tell(act):
    try:
        return repr(act())
    except OSError as error:
        return type(error).__name__
print(json.dumps({
    "its files": tell(lambda: open(f"/proc/{pid}/root/workspace/secret").read()),
    "its memory": tell(lambda: open(f"/proc/{pid}/mem", "rb").close()),
    "its variables": tell(lambda: open(f"/proc/{pid}/environ", "rb").read(3)),
    "a signal": tell(lambda: os.kill(pid, 0)),
    "its upper layer": tell(
        lambda: sorted(os.listdir(os.open(".", os.O_RDONLY, dir_fd=descriptor)))
    ),
    "a file in it": tell(lambda: os.read(os.open("secret", os.O_RDONLY, dir_fd=descriptor), 6)),
    "a new file in it": tell(lambda: os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)),
}))
"""


class Tenants:
    def __init__(self, suite: Suite, issuer: Issuer) -> None:
        self.suite = suite
        self._issuer = issuer

    def client(self, tenant: str) -> Client:
        return Client(self.suite.grpc, self._issuer.token(org=tenant))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tenants(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tenants]:
    folder, issuer = tmp_path_factory.mktemp("tenants"), Issuer()
    (folder / "keys").write_bytes(issuer.jwks())
    env = {
        "COVE_GATEWAY__JWT_ISSUER": issuer.url,
        "COVE_GATEWAY__JWT_AUDIENCE": issuer.audience,
        "COVE_GATEWAY__JWT_KEYS_FILE": str(folder / "keys"),
        "COVE_GATEWAY__JWT_TENANT_CLAIM": "org",
        "COVE_GATEWAY__JWT_ROLE": "admin",
        "COVE_PROVIDER__SANDBOX_UIDS": f"{FIRST}-{FIRST + 1}",
    }
    async with running_suite(folder, env=env) as suite:
        yield Tenants(suite, issuer)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("app") / "app"
    make_repository(path, {"README.md": "hello\n", "src/main.py": "print(1)\n"})
    return path


async def make(client: Client, repository: Path, name: str) -> Workspace:
    return await client.workspaces.create(repository=f"file://{repository}", id=name)


def upper(suite: Suite, content: str) -> Path:
    """The layer in which a file `secret` has this content."""
    for path in (suite.state / "git" / "worktrees").glob("*/upper"):
        if (path / "secret").exists() and (path / "secret").read_text() == content:
            return path
    raise AssertionError("no such layer")


def sleeps(tenant: str) -> bool:
    return sleeper(tenant) != 0


def sleeper(tenant: str) -> int:
    """The pid of the command that sleeps, here outside; 0 while there is none."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(SLEEP.format(tenant).encode() + b"\0"):
                return int(path.parent.name)
        except OSError:
            continue
    return 0


def spied(uid: int, pid: int, layer: Path) -> dict[str, str]:
    """What a process without any namespace gets of a sandbox and its layer, as this user, and as
    if no directory above the layer kept it out."""
    descriptor = os.open(layer, os.O_PATH | os.O_DIRECTORY)
    try:
        done = subprocess.run(
            ["python3", "-c", SPY, str(uid), str(pid), str(descriptor)],
            pass_fds=[descriptor],
            capture_output=True,
            text=True,
            check=True,
            cwd="/",
        )
    finally:
        os.close(descriptor)
    found: dict[str, str] = json.loads(done.stdout)
    return found


async def test_a_tenant_outside_of_its_namespaces_gets_nothing_of_another(
    tenants: Tenants, repository: Path
) -> None:
    async with tenants.client("acme") as acme, tenants.client("other") as other:
        owners, pids, layers = {}, {}, {}
        for name, client in (("acme", acme), ("other", other)):
            made = await make(client, repository, f"of-{name}")
            script = f"printf %s {name} > secret; exec -a {SLEEP.format(name)} sleep 600"
            await made.start("bash", "-c", script)
            await until(partial(sleeps, name), "the command runs")
            layers[name], pids[name] = upper(tenants.suite, name), sleeper(name)
            owners[name] = layers[name].stat().st_uid
            status = Path(f"/proc/{pids[name]}/status").read_text()
            assert f"Uid:\t{owners[name]}\t" in status
        assert sorted(owners.values()) == [FIRST, FIRST + 1]
        for spy, victim in (("acme", "other"), ("other", "acme")):
            found = spied(owners[spy], pids[victim], layers[victim])
            assert {*found.values()} == {"PermissionError"}, found
        own = spied(owners["acme"], pids["acme"], layers["acme"])
        assert own["a signal"] == "None"  # The same attempts, as who may.
        assert own["a file in it"] == repr(b"acme")


@pytest.mark.long
async def test_everything_works_as_with_one_user(tenants: Tenants, repository: Path) -> None:
    async with tenants.client("acme") as acme:
        made = await make(acme, repository, "works")
        script = "id -u; whoami; echo 2 >> src/main.py; echo new > new; rm README.md; git add ."
        done = await made.execute("sh", "-ec", script)
        assert done.stdout.split() == [b"%d" % SANDBOX_UID, b"cove"]
        await made.commit("From outside")
        assert await made.files.read("src/main.py") == b"print(1)\n2\n"
        await made.files.write("by-rpc", b"x")
        fork = await made.fork("forked")
        script = "cat new by-rpc; echo y > by-rpc; git log --oneline | wc -l"
        told = await fork.execute("sh", "-ec", script)
        assert told.stdout.split() == [b"new", b"x2"]
        layers = (tenants.suite.state / "git" / "layers").iterdir()
        uids = {path.stat().st_uid for path in layers if not path.name.startswith("empty")}
        assert uids <= {FIRST, FIRST + 1}


@pytest.mark.long
async def test_a_tenant_too_many_is_refused_and_its_create_leaves_nothing(
    tenants: Tenants, repository: Path
) -> None:
    async with tenants.client("acme") as acme, tenants.client("other") as other:
        for client, name in ((acme, "a"), (other, "b")):
            await make(client, repository, f"there-{name}")
        async with tenants.client("third") as third:
            with pytest.raises(ResourceExhausted, match="no uid is left"):
                await make(third, repository, "one-too-many")
            assert [each async for each in third.workspaces.list()] == []
