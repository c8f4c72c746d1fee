"""The git inside a sandbox follows commits that were made outside."""

import asyncio
import json
import os
import time

import pytest

from agent.record import ExitKind
from tests.agent.node import Box, Ended, Node, close, command, ended, output, until
from tests.agent.outside import BRANCH, outside

EDIT = "echo changed > f; echo new > n; rm gone; rm -r a; echo file > a"
EDITED = {"f": "changed\n", "n": "new\n", "gone": None, "a/one": None, "a/two": None, "a": "file\n"}


async def git(box: Box, script: str) -> str:
    """What a script of git's prints inside."""
    done = await shell(box, script)
    assert done.result.number == 0, done.stderr
    return done.stdout.decode()


async def shell(box: Box, script: str) -> Ended:
    return await box.run("sh", "-c", f"set -e; {script}", cwd="/workspace")


def said(branch: str, old: str, new: str) -> bytes:
    return json.dumps({"branch": branch, "from": old, "to": new}).encode()


async def state(box: Box) -> tuple[str, str]:
    """Tip and status."""
    tip, _, status = (await git(box, "git rev-parse HEAD; git status --porcelain")).partition("\n")
    return tip, status


async def test_the_next_command_sees_a_commit_of_everything_and_a_clean_status(node: Node) -> None:
    made = outside(node)
    async with made.sandbox() as box:
        assert await state(box) == (made.tips[0], "")
        await shell(box, EDIT)
        new = made.commit(EDITED)
        made.tell()
        assert await state(box) == (new, "")
        assert made.tip() == new
        log = await git(box, f"git log --format=%s {BRANCH}; git reflog -1 --format=%gs")
        assert log == "outside\nfirst\ncommit: outside of the sandbox\n"


async def test_every_command_right_after_a_commit_sees_it(node: Node) -> None:
    made = outside(node)
    async with made.sandbox() as box:
        for number in range(8):
            new = made.commit({"f": f"{number}\n"})
            made.tell()
            assert (await state(box))[0] == new


async def test_it_follows_while_a_command_runs(node: Node) -> None:
    made = outside(node)
    script = "while git rev-parse HEAD; do sleep 0.02; done"
    async with made.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("long")
        await agent.start("long", command("sh", "-c", script, cwd="/workspace"), sinks)
        for number in range(3):
            await until(lambda: made.tips[-1].encode() in output(sinks.log)[0])
            made.commit({"f": f"{number}\n"})
            made.tell()
        await until(lambda: made.tips[-1].encode() in output(sinks.log)[0])
        close(sinks)


async def test_it_follows_what_was_said_while_it_was_dormant(node: Node) -> None:
    made = outside(node)
    async with made.sandbox() as box:
        await shell(box, EDIT)
    new = made.commit(EDITED)
    made.tell()
    async with made.sandbox() as box:
        await until(lambda: made.tip() == new)
        assert await state(box) == (new, "")


async def test_what_was_staged_and_is_not_in_the_commit_stays_staged(node: Node) -> None:
    made = outside(node)
    async with made.sandbox() as box:
        await shell(box, "echo mine > mine; git add mine; echo 3 > a/one; echo c > f; git add a f")
        new = made.commit({"f": "c\n"})
        made.tell()
        assert await state(box) == (new, "M  a/one\nA  mine\n")


async def test_what_was_staged_otherwise_gives_way_to_the_commit(node: Node) -> None:
    made = outside(node)
    async with made.sandbox() as box:
        await shell(box, "echo staged > f; git add f; echo last > f; echo mine > m; git add m")
        new = made.commit({"f": "last\n"})
        made.tell()
        assert await state(box) == (new, "A  m\n")


async def test_it_does_not_follow_when_the_inside_has_moved_on(node: Node) -> None:
    made = outside(node)
    async with made.sandbox() as box:
        own = "git -c user.name=i -c user.email=i@example.com commit -qm inside --allow-empty"
        mine = await git(box, f"{own}; git rev-parse HEAD")
        made.commit({"f": "outside\n"})
        made.tell()
        assert await state(box) == (mine.strip(), "")
        # Nor when it goes back later: that was settled.
        await shell(box, f"git reset -q --hard {made.tips[0]}")
        assert await state(box) == (made.tips[0], "")


async def test_what_the_inside_undoes_stays_undone(node: Node) -> None:
    made = outside(node)
    async with made.sandbox() as box:
        made.commit({"n": "new\n"})
        made.tell()
        assert (await state(box))[0] == made.tips[1]
        await shell(box, f"git reset -q --hard {made.tips[0]}")
        assert await state(box) == (made.tips[0], "")
    async with made.sandbox() as box:
        assert await state(box) == (made.tips[0], "")


async def test_it_follows_several_commits_that_it_was_not_told_of_one_by_one(node: Node) -> None:
    made = outside(node)
    async with made.sandbox() as box:
        await shell(box, EDIT)
    for path, text in EDITED.items():
        made.commit({path: text})
    *before, old, _ = made.tips
    made.tell(before=before[::-1])
    async with made.sandbox() as box:
        assert await state(box) == (made.tips[-1], "")
        # What was followed and then left is not one of them.
        await shell(box, f"git reset -q --hard {old}")
        made.commit({"m": "more\n"})
        made.tell(before=made.tips[-3::-1])
        assert await state(box) == (old, "")


async def test_a_child_that_is_killed_is_made_up_for(node: Node) -> None:
    made = outside(node)
    script = "while true; do kill -9 -1; done"
    async with made.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("killer")
        await agent.start("killer", command("bash", "-c", script), sinks)
        made.commit({"f": "outside\n"})
        made.tell()
        await agent.cancel("killer", "enough")
        close(sinks)
        assert (await state(box))[0] == made.tips[1]


async def test_another_branch_that_is_checked_out_keeps_its_index(node: Node) -> None:
    made = outside(node)
    async with made.sandbox() as box:
        await shell(box, "git checkout -q -b other")
        new = made.commit({"f": "outside\n"})
        made.tell()
        assert await state(box) == (made.tips[0], "")
        assert made.tip() == new


async def test_a_branch_that_was_none_is_made(node: Node) -> None:
    made = outside(node)
    async with made.sandbox() as box:
        await shell(box, "git symbolic-ref HEAD refs/heads/orphan; git rm -rqf .")
        made.tips.clear()
        new = made.commit({"only": "x\n"})
        made.tell("", branch="orphan")
        assert await state(box) == (new, " D only\n")


async def test_a_lock_inside_is_waited_for_and_hinders_no_command_for_long(node: Node) -> None:
    made = outside(node)
    async with made.sandbox() as box:
        await shell(box, "touch .git/index.lock")
        new = made.commit({"f": "outside\n"})
        made.tell()
        began = time.monotonic()
        assert (await git(box, "git rev-parse HEAD")).strip() == new
        first = time.monotonic() - began
        began = time.monotonic()
        await git(box, "true")
        assert time.monotonic() - began < first
        await shell(box, "rm .git/index.lock")
        await shell(box, "git checkout -q f")
        assert await state(box) == (new, "")


async def test_hooks_and_monitors_of_the_inside_are_not_run(node: Node) -> None:
    made = outside(node)
    async with made.sandbox() as box:
        hook = "printf '#!/bin/sh\\ntouch /workspace/ran\\n' > hook; chmod +x hook"
        place = "mkdir .git/hooks; cp hook .git/hooks/reference-transaction; cp hook .git/mon"
        await shell(box, f"{hook}; {place}; mv hook .git/hooks/post-index-change")
        await shell(box, "git config core.fsmonitor /workspace/.git/mon; rm -f ran")
        made.commit({"f": "f2\n"})
        made.tell()
        await until(lambda: made.tip() == made.tips[1])
        assert (await git(box, "ls")).split() == ["a", "f", "gone"]


async def test_nonsense_changes_nothing_and_stops_nothing(node: Node) -> None:
    made = outside(node)
    new = made.commit({"f": "outside\n"})
    old = made.tips[0]
    texts = [b"", b"\0\xff", b"[]", b"{}", b"1" * 5000, b'{"branch": 1, "from": 2, "to": 3}']
    for branch in ("", "-d", "../../x", "a\0b", "a b", "x.lock", BRANCH + "/y"):
        texts += [said(branch, old, new)]
    for bad in ("0" * 40, "f" * 40, "--help", new[:39], new.upper()):
        texts += [said(BRANCH, old, bad), said(BRANCH, bad, new)]
    async with made.sandbox() as box:
        for text in texts:
            writing = made.tree.outside / "head.new"
            writing.write_bytes(text)
            writing.rename(made.tree.outside / "head")
            assert await state(box) == (old, ""), text
        (made.tree.outside / "head").unlink()
        os.mkfifo(made.tree.outside / "head")
        assert (await state(box))[0] == old
        (made.tree.outside / "head").unlink()
        made.tell(old, new)
        assert (await state(box))[0] == new


@pytest.mark.long
async def test_an_inside_that_is_broken_keeps_its_commands(node: Node) -> None:
    made = outside(node)
    async with made.sandbox() as box:
        for breaking in (
            "rm .git/index; mkfifo .git/index",
            "rm .git/index; mkdir .git/index",
            "mkfifo .git/cove-followed.new; rm -rf .git/cove-followed; mkfifo .git/cove-followed",
            "mv .git moved; ln -s .git .git",
            "rm .git; mkfifo .git",
            "rm .git",
        ):
            await shell(box, breaking)
            made.commit({"f": f"{breaking}\n"})
            made.tell(made.tip() if made.inside.is_dir() else made.tips[0])
            done = await box.run("echo", "on")
            assert (done.stdout, done.result.kind) == (b"on\n", ExitKind.CODE)


async def test_what_is_asked_about_a_command_that_waits_is_answered_after_it(node: Node) -> None:
    made = outside(node)
    async with made.sandbox() as box, box.agent() as agent:
        await shell(box, "touch .git/index.lock")
        made.commit({"f": "outside\n"})
        made.tell()
        sinks = box.sinks("c")
        sleep = command("sleep", "60", cwd="/workspace")
        await asyncio.gather(agent.start("c", sleep, sinks), agent.cancel("c", "enough"))
        assert (await ended(sinks)).result.kind is ExitKind.CANCELLED
        close(sinks)


async def test_a_prepared_start_sees_the_commit_too(node: Node) -> None:
    made = outside(node)
    async with made.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("p")
        await agent.prepare("token", sinks)
        new = made.commit({"f": "outside\n"})
        made.tell()
        await agent.run("token", "p", command("git", "rev-parse", "HEAD", cwd="/workspace"))
        assert (await ended(sinks)).stdout.decode().strip() == new
        close(sinks)


async def test_without_a_git_inside_nothing_happens(node: Node) -> None:
    made = outside(node)
    async with made.sandbox() as box:
        await shell(box, "rm -rf .git")
        made.commit({"f": "outside\n"})
        made.tell()
        assert (await shell(box, "ls -A")).stdout.split() == [b"a", b"f", b"gone"]
