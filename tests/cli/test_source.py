"""`cove status diff commit log branches push`, and `cp ls-files`, against the real suite."""

import json
import os
from pathlib import Path

import pytest

from cove.cli.console import quoted
from tests.support.repository import git
from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_change_goes_its_way_to_the_origin(suite: Suite, fresh: str, origin: Path) -> None:
    script = "echo more >> README.md; echo 1 > 'new file'; git rm --quiet --cached x 2>/dev/null; :"
    await suite.cove("exec", fresh, "--script", script)
    status = await suite.cove("status", fresh)
    assert status.text == f"## cove/{fresh}\n M README.md\n?? new file\n"
    diff = await suite.cove("diff", fresh, "README.md")
    assert "\n+more\n" in diff.text
    assert diff.text.startswith("diff --git a/README.md b/README.md\n")
    assert "\x1b" not in diff.text
    author = "Ada <ada@example.org>"
    committed = await suite.cove("commit", fresh, "-m", "Add\n\nbody", "--author", author)
    assert committed.text.endswith(" Add\n")
    assert (await suite.cove("status", fresh)).text == f"## cove/{fresh} [ahead 1]\n"
    assert (await suite.cove("diff", fresh)).text == ""
    log = await suite.cove("log", fresh, "--oneline")
    assert [line.split(" ", 1)[1] for line in log.text.splitlines()] == ["Add", "First"]
    assert f"Author: {author}\n" in (await suite.cove("log", fresh, "-n", "1")).text
    branches = await suite.cove("branches", fresh)
    assert f"* {committed.text.split()[0]} cove/{fresh}\n" in branches.text
    assert "origin/main" in branches.text
    pushed = await suite.cove("push", fresh)
    assert pushed.status == 0, pushed.errors
    assert f"cove/{fresh} -> file://" in pushed.text
    assert git(origin, "log", "-1", "--format=%an %s", f"cove/{fresh}") == "Ada Add\n"


async def test_a_branch_is_merged_or_its_conflicts_are_shown(
    suite: Suite, fresh: str, origin: Path
) -> None:
    git(origin, "branch", "next", "main")
    await suite.cove("exec", fresh, "--script", "echo ours > README.md")
    await suite.cove("commit", fresh, "-m", "Ours")
    seen = await suite.cove("merge", fresh, "next", "--preview")
    assert (seen.status, seen.text.splitlines()[-1]) == (0, "no conflicts, 1 file would change")
    merged = await suite.cove("merge", fresh, "next", "--squash", "-m", "Land it")
    assert merged.status == 0, merged.errors
    assert " next -> file://" in merged.text
    assert git(origin, "log", "-1", "--format=%s", "next") == "Land it\n"
    again = await suite.cove("merge", fresh, "next", "--squash")
    assert again.text == "next has all of it already\n"
    await suite.cove("exec", fresh, "--script", "echo more > README.md")
    await suite.cove("commit", fresh, "-m", "More")
    seen = await suite.cove("merge", fresh, "next", "--preview", "--json")
    assert (seen.status, json.loads(seen.text)["conflicts"][0]["kind"]) == (1, "KIND_CONTENT")
    shown = await suite.cove("merge", fresh, "next", "--preview")
    assert shown.text.splitlines()[1] == "content README.md"
    failed = await suite.cove("merge", fresh, "next")
    assert failed.status == 1
    assert "Merge the target inside the workspace" in failed.errors
    mixed = await suite.cove("merge", fresh, "next", "--rebase", "-m", "x")
    assert mixed.status == 2
    git(origin, "branch", "-D", "next")


async def test_workspaces_that_will_collide_are_shown(
    suite: Suite, fresh: str, origin: Path
) -> None:
    other = f"{fresh}-b"
    made = await suite.cove("create", str(origin), "--id", other)
    assert made.status == 0, made.errors
    none = await suite.cove("conflicts", fresh, other)
    assert (none.status, none.text) == (0, "no conflicts\n")
    for name in (fresh, other):
        await suite.cove("exec", name, "--script", f"echo {name} > README.md")
    seen = await suite.cove("conflicts", fresh, other)
    assert (seen.status, seen.text) == (1, f"## {fresh} {other}\ncontent README.md\n")
    told = json.loads((await suite.cove("conflicts", other, fresh, "--json")).text)
    assert told["collisions"][0]["workspaceA"] == f"workspaces/{other}"
    assert (await suite.cove("conflicts", fresh, other, "--committed")).status == 0
    assert (await suite.cove("conflicts", fresh, fresh)).status == 2
    await suite.cove("rm", "--force", other)


async def test_nothing_to_commit_is_a_failure(suite: Suite, fresh: str) -> None:
    done = await suite.cove("commit", fresh, "-m", "Nothing")
    assert done.status == 1
    assert done.errors.startswith("error: ")


async def test_options_may_stand_between_the_other_arguments(suite: Suite, fresh: str) -> None:
    await suite.cove("exec", fresh, "--script", "echo 1 > 'a b'; echo 2 > c")
    committed = await suite.cove("commit", fresh, "-m", "One", "a b")
    assert committed.status == 0, committed.errors
    assert (await suite.cove("status", fresh)).text == f"## cove/{fresh} [ahead 1]\n?? c\n"
    assert "a b" in (await suite.cove("diff", fresh, "--range", "base..head", "a b")).text
    log = await suite.cove("log", fresh, "--oneline", "HEAD")
    assert log.text.splitlines()[0].endswith(" One")


async def test_source_speaks_json(suite: Suite, fresh: str) -> None:
    await suite.cove("exec", fresh, "--script", "echo 1 > new.txt")
    status = json.loads((await suite.cove("status", fresh, "--json")).text)
    assert status["entries"] == [{"path": "new.txt", "workState": "WORK_STATE_UNTRACKED"}]
    diff = (await suite.cove("diff", fresh, "--json")).text.splitlines()
    assert [next(iter(json.loads(line))) for line in diff] == ["file", "patch", "end"]
    commit = json.loads((await suite.cove("commit", fresh, "-m", "Add", "--json")).text)["commit"]
    log = json.loads((await suite.cove("log", fresh, "-n", "1", "--json")).text)
    assert log["commits"][0]["id"] == commit["id"]


@pytest.mark.parametrize("arguments", [["--range", "nonsense"], ["--nonsense"]])
async def test_a_range_that_is_none_is_a_usage_error(
    suite: Suite, demo: str, arguments: list[str]
) -> None:
    assert (await suite.cove("diff", demo, *arguments)).status == 2


async def test_a_directory_goes_in_and_comes_back(suite: Suite, fresh: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep" / "empty").mkdir(parents=True)
    files = {"a b": b"1", "deep/\u00e4": bytes(range(256)) * 4096, "deep/none": b""}
    for name, content in files.items():
        (source / name).write_bytes(content)
    (source / "a b").chmod(0o755)
    copied = await suite.cove("cp", str(source), f"{fresh}:there", "--json")
    assert copied.status == 0, copied.errors
    assert json.loads(copied.text) == {"files": 3, "bytes": 1 + 256 * 4096, "skipped": []}
    back = await suite.cove("cp", f"{fresh}:there", str(tmp_path / "back"))
    assert back.status == 0, back.errors
    for name, content in files.items():
        assert (tmp_path / "back" / name).read_bytes() == content
    assert (tmp_path / "back" / "deep" / "empty").is_dir()
    assert os.access(tmp_path / "back" / "a b", os.X_OK)


async def test_a_file_goes_into_a_directory(suite: Suite, fresh: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("1\n")
    assert (await suite.cove("cp", str(tmp_path / "f"), f"{fresh}:src/")).status == 0
    assert (await suite.cove("cp", f"{fresh}:src/f", str(tmp_path / "g"))).status == 0
    assert (tmp_path / "g").read_text() == "1\n"
    listed = await suite.cove("ls-files", fresh, "src")
    assert [line.split()[-1] for line in listed.text.splitlines()] == ["f", "main.py"]


async def test_links_that_lead_out_are_told_and_left_out(
    suite: Suite, fresh: str, tmp_path: Path
) -> None:
    script = "ln -s /etc/passwd src/link; ln -s main.py src/inside; mkfifo src/pipe"
    await suite.cove("exec", fresh, "--script", script)
    done = await suite.cove("cp", "-r", f"{fresh}:src", str(tmp_path / "out"))
    assert done.status == 1
    assert "not copied: link" in done.errors
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["inside", "main.py"]
    assert (tmp_path / "out" / "inside").readlink() == Path("main.py")
    (tmp_path / "out" / "out").symlink_to("../..")
    back = await suite.cove("cp", "-r", str(tmp_path / "out"), f"{fresh}:src/", "--json")
    assert (back.status, json.loads(back.text)["skipped"]) == (1, ["out"])
    shown = await suite.cove("exec", fresh, "--script", "readlink src/out/inside; ls src/out")
    assert shown.text == "main.py\ninside\nmain.py\n"


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("none", "demo:x", "none: No such file"),
        ("demo:none", "x", "remedy: "),
        ("demo:README.md", "none/x", "none: Not a directory"),
        (".", "demo:/etc", "remedy: "),
    ],
)
async def test_a_copy_that_cannot_be_made_says_why(
    suite: Suite, demo: str, tmp_path: Path, source: str, target: str, said: str
) -> None:
    done = await suite.cove("cp", source, target, cwd=tmp_path)
    assert done.status == 1
    assert done.errors.startswith("error: ")
    assert said in done.errors
    assert list(tmp_path.iterdir()) == []


async def test_a_copy_between_two_local_paths_is_a_usage_error(suite: Suite) -> None:
    assert (await suite.cove("cp", "a", "b")).status == 2


async def test_unusual_names_are_quoted_as_git_does() -> None:
    assert quoted("a b") == "a b"
    assert quoted('a"\n') == '"a\\"\\n"'
    assert quoted("", b"\xff") == '"\\377"'
