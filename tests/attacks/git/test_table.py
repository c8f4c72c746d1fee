"""The attacks are complete, and what detects a hit does."""

import ast
import asyncio
import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from tests.attacks.git.arena import LINGER, Arena, Watch
from tests.attacks.git.parts import Attacked
from tests.attacks.git.rpcs import LOOKING
from tests.attacks.git.test_inside import ATTACKS
from tests.support.suite import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

CASES = [
    *(f"F{number}" for number in range(1, 20)),
    *(f"A{number}" for number in range(1, 15)),
    *(f"B{number}" for number in (1, 2, 3, 4, 5, 6, 21, 24)),
]
# Cases that are no script in a workspace, by the test that stands for them.
ELSEWHERE = {
    "A11": "test_values_that_look_like_options_are_refused",
    "A13": "test_what_git_refuses_is_told_by_path_and_blocks_nothing",
    "A14": "test_any_name_is_told_and_committed_as_it_is",
    "B1": "test_paths_out_of_the_worktree_are_refused",
    "B2": "test_links_are_committed_as_links",
    "B3": "test_a_tree_that_leads_into_git_or_out_is_not_checked_out",
    "B4": "test_submodules_are_never_fetched",
    "B6": "test_harm_to_ones_own_git_directory_is_ones_own",
    "B21": "test_the_rest_is_committed_in_bounded_time",
    "B24": "test_harm_to_ones_own_git_directory_is_ones_own",
}


async def test_every_case_has_an_attack() -> None:
    covered = {case for attack in ATTACKS for case in attack.covers} | ELSEWHERE.keys()
    assert covered == set(CASES)
    names = {
        node.name
        for path in Path(__file__).parent.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.AsyncFunctionDef)
    }
    assert set(ELSEWHERE.values()) <= names


async def test_plain_git_is_hit_by_nearly_all_of_the_nineteen() -> None:
    nineteen = {
        case for attack in ATTACKS if attack.hits for case in attack.covers if case[0] == "F"
    }
    assert len(nineteen) >= 18  # Each is asserted to hit, where it is tried.
    always = {case for attack in ATTACKS if not attack.long for case in attack.covers}
    assert nineteen <= always


async def test_every_rpc_that_looks_at_a_workspace_is_called(attacked: Attacked) -> None:
    async with attacked.workspace() as workspace:
        await workspace.write("README.md", b"ours\n")
        answers = [answer async for answer in attacked.target(workspace).all()]
    assert {answer.rpc for answer in answers} == LOOKING
    working = {answer.rpc for answer in answers if not answer.failure}
    # All do their work, but for a merge of what conflicts, and a commit nobody signed.
    assert LOOKING - working <= {"MergeBranch", "GetProvenance"}


async def test_the_canary_is_seen_wherever_it_runs(attacked: Attacked, traps: Arena) -> None:
    # On the host: it leaves a mark.
    process = await asyncio.create_subprocess_exec("sh", "-c", traps.canary)
    await process.wait()
    assert traps.dropped()
    # Where it cannot: it is seen among the processes, also through namespaces.
    everywhere = traps.canary.replace("test -e /home/cove && exit 0;", "")
    everywhere = everywhere.replace(f"sleep {LINGER}", "sleep 600")
    async with attacked.workspace() as workspace:
        with Watch(traps.token) as watch:
            running = await workspace.start("sh", "-c", everywhere)
            await until(lambda: watch.seen, "the canary is seen")
        await running.delete(force=True)
        done = await workspace.execute("sh", "-c", everywhere.replace("sleep 600", "true"))
        assert traps.found_in([done.stdout]) == {"output of the canary"}
        with Watch(traps.token) as watch:
            done = await workspace.execute("sh", "-c", traps.canary)
        assert not watch.seen
        assert done.stdout == b""


async def test_a_stolen_text_is_found(attacked: Attacked) -> None:
    # A text of its own, as what is found once would be found by all that follow.
    other = replace(attacked, arena=replace(attacked.arena, secret=secrets.token_hex(16)))
    path = attacked.suite.state / "git" / "stolen"
    path.write_text(f"x{other.arena.secret}x")
    try:
        assert list(other.in_files()) == [(path, "a file of the host")]
    finally:
        path.unlink()
    async with attacked.workspace() as workspace:
        await workspace.write("new", other.arena.secret.encode())
        await workspace.commit("As if it were stolen")
        assert other.in_objects() == {"a file of the host"}
