"""What one command can see of another one, and what its own domain takes from it."""

import os

import pytest

from agent.client import AgentError, ErrorCode, Scope
from agent.inside import system
from tests.agent.node import Node, close, command, ended, python, until

LOOK = """
for each in /proc/[0-9]*; do
  tr '\\0' '\\n' < $each/environ
  ls -l $each/fd $each/exe $each/cwd
  head -c 65536 $each/mem $each/maps $each/auxv $each/stack $each/syscall
  cat $each/cmdline $each/status $each/stat
done 2>/dev/null
"""

pytestmark = pytest.mark.skipif(not system.can_separate(), reason="the kernel has no Landlock")


async def test_a_secret_is_seen_by_its_command_and_its_children_only(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("one")
        script = (
            'sh -c \'echo =$TOKEN= $(tr "\\0" "\\n" < /proc/$PPID/environ | grep -c TOKEN=)\'; cat'
        )
        try:
            await agent.start(
                "one",
                command("sh", "-c", f"{script}; sleep 60", secrets={"TOKEN": "hush-hush"}),
                sinks,
            )
            await until(lambda: b"=hush-hush= 1" in os.pread(sinks.log, 4096, 0))
            seen = await box.run("sh", "-c", LOOK)
            assert b"PATH=" in seen.stdout  # Its own.
            assert b"hush" not in seen.stdout
            # One that was started before, and lives on.
            await agent.signal("one", 9, Scope.TREE)
        finally:
            close(sinks)


async def test_an_earlier_background_process_sees_nothing(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        spy = f"(while [ ! -e stop ]; do ({LOOK}) | grep -a -m1 hus[h] >> found; sleep 0.05; done; "
        await box.run("sh", "-c", f"cd /workspace; {spy} touch stopped) >/dev/null 2>&1 &")
        sinks = box.sinks("two")
        try:
            spec = command("sh", "-c", "sleep 0.5; echo $TOKEN", secrets={"TOKEN": "hush-hush"})
            await agent.start("two", spec, sinks)
            assert (await ended(sinks)).stdout == b"hush-hush\n"
        finally:
            close(sinks)
        (box.worktree / "stop").touch()
        await until((box.worktree / "stopped").exists)
        assert (box.worktree / "found").read_bytes() == b""


async def test_renames_links_and_sockets_work_as_before(node: Node) -> None:
    script = """
import os, socket
for folder in ("/workspace", "/tmp", "/home/cove"):
    os.chdir(folder)
    os.makedirs("a/d"), os.mkdir("b")
    open("a/f", "w").close()
    os.rename("a/f", "b/f"), os.link("b/f", "a/g"), os.replace("b/f", "a/h")
    os.rename("a/d", "b/d"), os.symlink("a", "c"), os.mkfifo("b/p")
    nameless = os.open(".", os.O_TMPFILE | os.O_RDWR)
    here = os.open(".", os.O_PATH)  # With a descriptor it is linkat, which follows.
    os.link(f"/proc/self/fd/{nameless}", "b/t", src_dir_fd=here, follow_symlinks=True)
    s = socket.socket(socket.AF_UNIX); s.bind("b/s"); s.listen()
print("all")
"""
    async with node.sandbox() as box:
        done = await box.run(*python(script))
        assert done.stdout == b"all\n", done.stderr


async def test_signals_reach_other_commands(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("one")
        try:
            await agent.start("one", command("sleep", "60"), sinks)
            assert (await box.run("sh", "-c", "kill $(pgrep sleep)")).result.number == 0
            assert (await ended(sinks)).result.number == 15
        finally:
            close(sinks)


async def test_what_cannot_be_redacted_is_not_run(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        sinks = box.sinks("one")
        try:
            long = command("true", secrets={"A": "x" * 5000}, redact=True)
            with pytest.raises(AgentError) as caught:
                await agent.start("one", long, sinks)
            assert caught.value.code is ErrorCode.BAD_REQUEST
            assert os.fstat(sinks.log).st_size == 0
        finally:
            close(sinks)
