"""Names and values that look like something else: they stay names and values."""

from collections.abc import AsyncIterator, Awaitable

import pytest

from cove.git.v1.git_pb2 import DiffFile
from cove.status import CoveError, InvalidArgument
from cove.workspace import Workspace
from tests.attacks.git.arena import Watch
from tests.attacks.git.naive import Naive
from tests.attacks.git.parts import Attacked
from tests.support.repository import git

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.long]

NAMES = [
    *(b"--upload-pack=x", b"-", b"--", b"-n", b":(top)x", b":!x", b"*", b"[a]", b"a?"),
    *(b"a\nb", b"a\tb", b"a b", b" ", b"\n", b'"q"', b"\\x", b"'", b"$(id)", b"`id`", b"\x01\x7f"),
    *(b"\xff\xfe", b"\xed\xa0\x80", b"e\xcc\x81", b"\xc3\xa9", b"n" * 255, b"\xff" * 255),
    *(b"#x", b"!x", b"...", b".. ", b"HEAD", b"refs", b"objects", b"config", b"a:b", b"a\\..\\b"),
]
REFUSED_BY_GIT = [b".GIT/config", b"d/.Git/x", b"GIT~1/x", b"e/.git\xe2\x80\x8c/x"]


async def works(call: Awaitable[object]) -> bool:
    try:
        await call
    except (CoveError, ValueError):
        return False
    return True


async def drain(events: AsyncIterator[object]) -> None:
    async for _ in events:
        pass


async def test_any_name_is_told_and_committed_as_it_is(workspace: Workspace) -> None:
    for name in NAMES:
        await workspace.write(name, b"x")
    entries = {
        entry.raw_path or entry.path.encode() for entry in (await workspace.status()).entries
    }
    assert entries == set(NAMES)
    done = await workspace.commit("Names")
    assert not done.skipped
    assert not (await workspace.status()).entries
    listed = await workspace.execute("git", "ls-tree", "-z", "--name-only", "HEAD")
    assert set(NAMES) < set(listed.stdout.split(b"\0"))
    events = [event async for event in workspace.diff(paths=["*"])]
    assert not [event for event in events if isinstance(event, DiffFile)]


async def test_what_git_refuses_is_told_by_path_and_blocks_nothing(workspace: Workspace) -> None:
    for name in REFUSED_BY_GIT:
        folders = name.split(b"/")[:-1]
        for depth in range(len(folders)):
            await workspace.mkdir(b"/".join(folders[: depth + 1]))
        await workspace.write(name, b"x")
    await workspace.write("good", b"x")
    done = await workspace.commit("What can be")
    skipped = {one.raw_path or one.path.encode() for one in done.skipped}
    listed = await workspace.execute("git", "ls-tree", "-rz", "--name-only", "HEAD")
    inside = set(listed.stdout.split(b"\0"))
    assert b"good" in inside
    assert b".GIT/config" in skipped
    for name in REFUSED_BY_GIT:
        assert (name in skipped) != (name in inside), name


# Content that the checks of a receiving git refuse, or that a commit may hold all the same.
BAD_CONTENT = {
    "a submodule's url": (".gitmodules", '[submodule "x"]\n\tpath = x\n\turl = -uevil\n'),
    "a submodule's name": (".gitmodules", '[submodule "../x"]\n\tpath = x\n\turl = x\n'),
    "a submodule's path": (".gitmodules", '[submodule "x"]\n\tpath = -x\n\turl = x\n'),
    "a submodule's update": (".gitmodules", '[submodule "x"]\n\turl = x\n\tupdate = !x\n'),
    "no configuration": (".gitmodules", "[[[\0"),
    "a long line of attributes": (".gitattributes", "* " + "x" * 5000 + "\n"),
}


@pytest.mark.parametrize(
    "name",
    BAD_CONTENT,
)
async def test_a_file_whose_content_git_minds_blocks_nothing(
    name: str, workspace: Workspace
) -> None:
    path, content = BAD_CONTENT[name]
    await workspace.write(path, content.encode())
    await workspace.write("good", b"x")
    done = await workspace.commit("What can be")
    listed = await workspace.execute("git", "ls-tree", "-z", "--name-only", "HEAD")
    inside = set(listed.stdout.decode().split("\0"))
    assert "good" in inside
    assert (path in {one.path for one in done.skipped}) != (path in inside)


@pytest.mark.parametrize("path", [".gitmodules", ".gitattributes", ".gitignore", ".mailmap"])
async def test_a_link_in_place_of_a_file_of_git_blocks_nothing(
    path: str, attacked: Attacked, workspace: Workspace
) -> None:
    script = f'echo x > good; ln -s "$SECRETS/file" {path}; mkdir d; ln -s "$SECRETS/file" d/{path}'
    assert not await attacked.plant(workspace, script)
    hits, _ = await attacked.hits(workspace)
    assert not hits
    shown = await workspace.execute("git", "cat-file", "-e", "HEAD:good")
    assert shown.exit_status == 0


async def test_links_are_committed_as_links(attacked: Attacked, workspace: Workspace) -> None:
    script = (
        'ln -sf "$SECRETS/file" README.md; ln -s "$SECRETS" host; ln -s /proc/self/environ env;'
        'rm -r src; ln -s "$SECRETS" src; ln -s / root'
    )
    assert not await attacked.plant(workspace, script)
    hits, _ = await attacked.hits(workspace)
    assert not hits
    files = await workspace.execute("git", "ls-tree", "-r", "HEAD")
    modes = {line.split(b"\t")[1]: line.split(b" ")[0] for line in files.stdout.splitlines()}
    for name in (b"host", b"README.md", b"env", b"src", b"root"):
        assert modes[name] == b"120000"
    assert b"src/main.py" not in modes


async def test_values_that_look_like_options_are_refused(
    attacked: Attacked, naive: Naive, workspace: Workspace
) -> None:
    canary = f"--upload-pack={attacked.arena.canary}"
    naive.run(["git", "ls-remote", canary, str(naive.origin)], naive.origin)
    assert attacked.arena.dropped(), "the attack does not work on plain git: it shows nothing"

    await workspace.write("new", b"x")
    await workspace.commit("New")
    remotes = [canary, f"ext::sh -c {attacked.arena.canary}", "fd::3", "/etc", "-", "x:y"]
    remotes += ["git://127.0.0.1/a", f"file://{attacked.suite.state}/git/repositories"]
    remotes += ["file:///etc/../etc", "ssh://-oProxyCommand=x/y", "https://-x/y", "file://h/x\ny"]
    remotes += [f"file://{attacked.variables['OTHER_OBJECTS'].removesuffix('/objects')}"]
    branches = ["--force", "-x", "a:b", "a b", "refs/../x", "a\nb", "@{-1}", "x.lock", "^x", "-"]
    revisions = [canary, "--output=x", "-1", "HEAD --output=x", "@{-1}", ":/x", "HEAD^{/x}", "a..b"]
    revisions += [attacked.variables["OTHER_COMMIT"], "../x", "refs/cove/x/head", "\nHEAD"]
    taken = []
    with Watch(attacked.arena.token) as watch:
        async with attacked.suite.client(patience=0.1) as cove:
            named = cove.workspaces.named(workspace.id)
            taken += [each for each in remotes if await works(named.push(remote=each))]
            taken += [each for each in branches if await works(named.push(branch=each))]
            for each in revisions:
                taken += [f"log {each}"] if await works(drain(named.log(each))) else []
                diff = named.diff(f"{each}..HEAD")
                taken += [f"diff {each}"] if await works(drain(diff)) else []
                made = cove.workspaces.create(f"file://{attacked.origin}", revision=each)
                taken += [f"create {each}"] if await works(made) else []
    assert not taken
    assert not watch.seen
    assert not attacked.arena.dropped()
    assert not list(attacked.suite.state.glob("**/x"))


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "..", "a\0b", ".git/config"])
async def test_paths_out_of_the_worktree_are_refused(path: str, workspace: Workspace) -> None:
    await workspace.write("new", b"x")
    if path != ".git/config":
        with pytest.raises((InvalidArgument, CoveError)):
            await workspace.commit("Outside", paths=[path])
    with pytest.raises(CoveError):
        await workspace.commit("Outside", paths=[path])
    shown = [event async for event in workspace.diff(paths=["new"])]
    assert [event.path for event in shown if isinstance(event, DiffFile)] == ["new"]


async def test_a_message_and_an_author_are_only_text(
    attacked: Attacked, workspace: Workspace
) -> None:
    await workspace.write("new", b"x")
    message = f"--amend\n\ntree {'0' * 40}\nparent {'0' * 40}\n$({attacked.arena.canary})"
    done = await workspace.commit(message, author=("-x", "--y"), trailers={"A": "$(id)"})
    [first, *_] = [commit async for commit in workspace.log()]
    assert (first.id, first.message) == (done.commit.id, message)
    assert list(first.parents) == [workspace.message.base_commit]
    assert not attacked.arena.dropped()
    assert git(attacked.origin, "rev-parse", "main").strip() == workspace.message.base_commit
