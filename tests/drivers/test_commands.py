"""Commands, on every driver: their output, their ends, and that each runs once."""

import asyncio
import signal
from uuid import uuid4

import pytest

from cove.status import AlreadyExists, FailedPrecondition, NotFound
from tests.drivers.standing import Stage


async def test_a_command_has_its_output_and_status(stage: Stage) -> None:
    async with await stage.create() as workspace:
        done = await workspace.execute(script="echo out; echo err >&2; exit 3")
        assert (done.stdout, done.stderr, done.exit_status) == (b"out\n", b"err\n", 3)


async def test_a_command_sees_its_environment(stage: Stage) -> None:
    async with await stage.create(env={"OF": "workspace", "BOTH": "workspace"}) as workspace:
        done = await workspace.execute(
            script="mkdir -p deep; cd deep; echo $OF $BOTH $PWD; id -u",
            env={"BOTH": "command"},
        )
        assert done.text.splitlines()[0] == "workspace command /workspace/deep"
        assert done.text.splitlines()[1] != "0"
        there = await workspace.execute("pwd", cwd="deep")
        assert there.text == "/workspace/deep\n"


async def test_output_is_what_was_written_byte_by_byte(stage: Stage) -> None:
    async with await stage.create() as workspace:
        done = await workspace.execute(script=r"printf 'a\000\377\303(b'; printf '\200' >&2")
        assert (done.stdout, done.stderr) == (b"a\0\xff\xc3(b", b"\x80")


async def test_output_is_read_again_from_any_byte(stage: Stage) -> None:
    async with await stage.create() as workspace:
        execution = await workspace.start(script="printf 0123456789")
        await execution.wait()
        for offset in (0, 4, -3):
            read = b""
            async for event in execution.output(offset):
                read += getattr(event, "data", b"")
            assert read == b"0123456789"[offset:]


async def test_a_signal_that_kills_the_command_is_told(stage: Stage) -> None:
    async with await stage.create() as workspace:
        done = await workspace.execute(script="echo before; kill -9 $$")
        assert done.stdout == b"before\n"
        assert done.execution.exit.signal.number == signal.SIGKILL


async def test_what_a_command_wrote_stays_whatever_its_status(stage: Stage) -> None:
    async with await stage.create() as workspace:
        await workspace.execute(script="echo kept > file; exit 1")
        await workspace.execute(script="echo more >> file; kill -9 $$")
        assert (await workspace.execute("cat", "file")).text == "kept\nmore\n"


async def test_a_timeout_is_told_from_every_other_end(stage: Stage) -> None:
    async with await stage.create() as workspace:
        done = await workspace.execute("sleep", "600", timeout=1)
        assert done.execution.exit.WhichOneof("reason") == "timed_out"


async def test_no_such_program_is_told_and_the_id_stays_free(stage: Stage) -> None:
    async with await stage.create() as workspace:
        with pytest.raises(NotFound) as caught:
            await workspace.execute("no-such-program", id="again")
        assert caught.value.reason == "ERROR_REASON_PROGRAM_NOT_FOUND"
        assert (await workspace.execute("true", id="again")).exit_status == 0


async def test_an_id_runs_once(stage: Stage) -> None:
    async with await stage.create() as workspace:
        script = "echo x >> ran; cat ran"
        answers = await asyncio.gather(
            *(workspace.execute(script=script, id="only") for _ in range(4))
        )
        assert {each.text for each in answers} == {"x\n"}
        with pytest.raises(AlreadyExists):
            await workspace.execute(script="true", id="only")
        assert (await workspace.execute("cat", "ran")).text == "x\n"


async def test_commands_run_one_after_another_on_the_same_files(stage: Stage) -> None:
    async with await stage.create() as workspace:
        for number in range(5):
            await workspace.execute(script=f"echo {number} >> numbers", check=True)
        assert (await workspace.execute("cat", "numbers")).text == "0\n1\n2\n3\n4\n"


async def test_many_commands_at_once_all_count(stage: Stage) -> None:
    """Beside each other where the driver has `parallel`, else one after another: none is lost."""
    async with await stage.create() as workspace:
        scripts = [f"echo {number} > made-{number}" for number in range(6)]
        done = await asyncio.gather(*(workspace.execute(script=each) for each in scripts))
        assert {each.exit_status for each in done} == {0}
        names = {each.path for each in await workspace.list()}
        assert names >= {f"made-{number}" for number in range(6)}


async def test_live_output_comes_before_the_end(stage: Stage) -> None:
    _needs(stage, "live_output")
    async with await stage.create() as workspace:
        events = workspace.stream(script="echo first; until [ -e go ]; do sleep 0.05; done")
        seen = b""
        async for event in events:
            seen += getattr(event, "data", b"")
            if seen == b"first\n":
                await workspace.files.write("go", b"")
        assert seen == b"first\n"


async def test_input_reaches_a_command(stage: Stage) -> None:
    if "input" not in stage.can:
        await _refused(stage, stdin=True, capability="input")
        return
    async with await stage.create() as workspace:
        execution = await workspace.start("cat", stdin=True)
        await execution.write("typed\n", close=True)
        await execution.wait()
        read = b"".join([getattr(each, "data", b"") async for each in execution.output()])
        assert read == b"typed\n"


async def test_a_terminal_is_one(stage: Stage) -> None:
    if "terminal" not in stage.can:
        await _refused(stage, terminal=(24, 80), capability="terminal")
        return
    async with await stage.create() as workspace:
        execution = await workspace.start(script="test -t 0 && stty size", terminal=(24, 80))
        ended = await execution.wait()
        read = b"".join([getattr(each, "data", b"") async for each in execution.output()])
        assert (ended.exit.code, read.strip()) == (0, b"24 80")


async def test_a_signal_is_delivered(stage: Stage) -> None:
    async with await stage.create() as workspace:
        script = "trap 'echo caught; exit 5' USR1; echo up; while :; do sleep 0.05; done"
        execution = await workspace.start(script=script, timeout=20)
        if "signals" not in stage.can:
            with pytest.raises(FailedPrecondition) as caught:
                await execution.signal(signal.SIGUSR1, "process")
            assert caught.value.reason == "ERROR_REASON_CAPABILITY_MISSING"
            await execution.delete(force=True)
            return
        async for event in execution.output():
            if getattr(event, "data", b"") == b"up\n":
                await execution.signal(signal.SIGUSR1, "process")
        assert (await execution.wait()).exit.code == 5


async def test_what_is_deleted_by_force_has_ended(stage: Stage) -> None:
    async with await stage.create() as workspace:
        execution = await workspace.start(script="sleep 600; touch never", id="long")
        await execution.delete(force=True)
        with pytest.raises(NotFound):
            await workspace.executions.named("long").refresh()
        names = {each.path for each in await workspace.list()}
        assert "never" not in names


async def test_a_background_process_goes_on(stage: Stage) -> None:
    _needs(stage, "background")
    async with await stage.create() as workspace:
        script = "(until [ -e go ]; do sleep 0.05; done; echo went > gone) > /dev/null 2>&1 &"
        await workspace.execute(script=script, check=True)
        await workspace.execute("touch", "go", check=True)
        waited = await workspace.execute(
            script="until [ -s gone ]; do sleep 0.05; done", timeout=20
        )
        assert waited.exit_status == 0


async def test_secrets_reach_the_command_only(stage: Stage) -> None:
    if "secrets" not in stage.can:
        async with await stage.create() as workspace:
            with pytest.raises(FailedPrecondition) as caught:
                await workspace.execute("true", secrets={"TOKEN": "s3cret-value"})
            assert caught.value.reason == "ERROR_REASON_CAPABILITY_MISSING"
        return
    async with await stage.create() as workspace:
        script = 'test "$TOKEN" = s3cret-value && echo has'
        done = await workspace.execute(script=script, secrets={"TOKEN": "s3cret-value"})
        assert done.text == "has\n"
        after = await workspace.execute(script='echo "[$TOKEN]"')
        assert after.text == "[]\n"


def _needs(stage: Stage, capability: str) -> None:
    """That it is refused where it is missing `test_refusals` tests for every capability."""
    if capability not in stage.can:
        pytest.skip(f"{stage.standing.name} has no {capability}; refused at create")


async def _refused(stage: Stage, capability: str, **options: object) -> None:
    """Refused at the start, with the capability's name and a remedy; the id stays free."""
    async with await stage.create() as workspace:
        name = f"x{uuid4().hex[:8]}"
        with pytest.raises(FailedPrecondition) as caught:
            await workspace.start("cat", id=name, **options)  # type: ignore[arg-type]
        assert caught.value.reason == "ERROR_REASON_CAPABILITY_MISSING"
        assert caught.value.metadata["capability"] == capability
        assert caught.value.remedy
        assert (await workspace.execute("true", id=name)).exit_status == 0
