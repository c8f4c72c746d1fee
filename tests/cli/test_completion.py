"""Completion, as a real bash asks for it."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.suite import Suite

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash"),
]

# Sets what readline sets, calls what `complete` registered, and prints what it would offer.
ASK = r"""
eval "$(cove completion bash)"
[[ $(complete -p cove) =~ -F\ ([^ ]+) ]] || exit 1
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9
read -ra COMP_WORDS <<< "$1"
[[ $1 == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
"${BASH_REMATCH[1]}" cove
printf '%s\n' "${COMPREPLY[@]}"
"""

_BELL = b"\a"


def environment(suite: Suite) -> dict[str, str]:
    """In which `cove` is found, and finds the suite."""
    path = f"{Path(sys.executable).parent}:{suite.env['PATH']}"
    return {**suite.env, "PATH": path, "COVE_STATE": str(suite.state), "TERM": "dumb"}


async def offers(suite: Suite, line: str, cwd: Path, some: set[str]) -> set[str]:
    """What bash offers when these are among it: who asks waits a second at most for the suite."""
    async with asyncio.timeout(60):
        while not some <= (found := await offered(suite, line, cwd)):
            pass  # Each asks anew.
    return found


async def offered(suite: Suite, line: str, cwd: Path, **variables: str) -> set[str]:
    """What bash would offer at the end of the line; nothing may be said besides."""
    process = await asyncio.create_subprocess_exec(
        *["bash", "--norc", "--noprofile", "-c", ASK, "bash", line],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**environment(suite), **variables},
        cwd=cwd,
    )
    async with asyncio.timeout(30):
        stdout, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"")
    return {each.strip() for each in stdout.decode().splitlines() if each.strip()}


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("cove ", {"create", "exec", "up", "doctor", "completion"}),
        ("cove exec --de", {"--detach"}),
        ("cove exec demo --merge", {"--merge-stderr"}),
        ("cove kill demo x --scope ", {"process", "group", "tree"}),
        ("cove kill demo x -s K", {"KILL"}),
        ("cove diff demo --range b", {"base..work", "base..head"}),
        ("cove completion ", {"bash", "zsh", "fish"}),
        ("cove help und", {"undelete"}),
        ("cove show d", {"demo"}),
        ("cove exec --timeout 5 d", {"demo"}),
        ("cove rm other d", {"demo"}),
        ("cove cp d", {"demo:"}),
        ("cove cp lo", {"local"}),
        ("cove create fol", {"folder/"}),
        ("cove push demo --ssh-key lo", {"local"}),
    ],
)
async def test_what_is_begun_is_offered(
    suite: Suite, demo: str, tmp_path: Path, line: str, some: set[str]
) -> None:
    (tmp_path / "local").touch()
    (tmp_path / "folder").mkdir()
    await offers(suite, line, tmp_path, some)


async def test_executions_are_those_of_the_workspace(
    suite: Suite, demo: str, fresh: str, tmp_path: Path
) -> None:
    await suite.cove("exec", fresh, "--id", "only-here", "true")
    only = {"only-here"}
    assert await offers(suite, f"cove logs {fresh} ", tmp_path, only) == only
    assert "only-here" not in await offered(suite, f"cove wait {demo} ", tmp_path)


async def test_only_deleted_ones_can_be_brought_back(
    suite: Suite, demo: str, fresh: str, tmp_path: Path
) -> None:
    await suite.cove("exec", fresh, "--script", "echo 1 > unsaved")
    await suite.cove("rm", fresh)
    assert demo not in await offers(suite, "cove undelete ", tmp_path, {fresh})
    assert fresh not in await offers(suite, "cove show ", tmp_path, {demo})


@pytest.mark.parametrize("line", ["cove show ", "cove exec demo ls ", "cove create --id "])
async def test_nothing_is_said_where_nobody_answers(
    suite: Suite, tmp_path: Path, line: str
) -> None:
    nobody = {"COVE_ADDRESS": "127.0.0.1:1", "COVE_TOKEN": "x"}
    assert await offered(suite, line, tmp_path, **nobody) == set()


async def test_a_person_at_a_terminal_gets_the_name_completed(suite: Suite, demo: str) -> None:
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *["bash", "--norc", "--noprofile", "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment(suite), "PS1": "ready ", "HISTFILE": "/dev/null"},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        await seen(ours, b"ready ")
        os.write(ours, b'eval "$(cove completion bash)"; echo lo""aded\n')
        await seen(ours, b"loaded\r\nready ")
        os.write(ours, b"cove sho\t")
        await seen(ours, b"show ")
        os.write(ours, b"dem\t")
        async with asyncio.timeout(60):
            while b"demo " not in await seen(ours, b"demo ", _BELL):
                os.write(ours, b"\t")  # The suite took too long to answer.
    finally:
        process.kill()
        await process.wait()
        os.close(ours)


async def seen(terminal: int, *texts: bytes) -> bytes:
    """Read what comes to a terminal until one of the texts was there."""
    got = b""
    async with asyncio.timeout(30):
        while not any(text in got for text in texts):
            got += await asyncio.to_thread(os.read, terminal, 1024)
    return got


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_the_script_is_one_of_the_shell(suite: Suite, shell: str, tmp_path: Path) -> None:
    script = await suite.cove("completion", shell)
    assert script.status == 0
    assert "cove" in script.text
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} to read it")
    path = tmp_path / "script"
    path.write_text(script.text)
    process = await asyncio.create_subprocess_exec(shell, "-n", str(path))
    assert await process.wait() == 0
