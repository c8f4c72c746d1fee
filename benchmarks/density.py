"""Memory of an active workspace, in which a command runs, beside that of a container.

What is shared counts for each process by its part (PSS), all processes together.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from benchmarks.suite import Suite, make_repository, tree

MANY: Final = 40
_IN_A_GIB: Final = 250
_FEW: Final = 3
"""Made before, so that what is loaded once is not counted."""


async def run(suite: Suite, folder: Path) -> None:
    repository = make_repository(folder / "repo", 45)

    async def more(first: int, end: int) -> None:
        for number in range(first, end):
            await suite.create(repository, f"density-{number}")
            await suite.start(f"density-{number}", "sleep", "86400")

    await more(0, _FEW)
    services, before = {*suite.processes().values()}, suite.descendants()
    all_before, services_before = held(before), held(services)
    await more(_FEW, MANY)
    now = suite.descendants()
    every = (held(now) - all_before) / (MANY - _FEW)
    own = every - (held(services) - services_before) / (MANY - _FEW)
    print(f"\nmemory of each of {MANY} active workspaces")
    print(f"  {every / 1e6:.2f} MB, {own / 1e6:.2f} MB without the services: ", end="")
    print(f"{(1 << 30) / every:.0f} to {(1 << 30) / own:.0f} in a GiB")
    told = "holds" if (1 << 30) / every >= _IN_A_GIB else "is missed"
    print(f"  aim: at least {_IN_A_GIB} in a GiB, it {told}")
    await _beside(suite, own)
    for number in range(MANY):
        await suite.delete(f"density-{number}")


async def _beside(suite: Suite, own: float) -> None:
    if not suite.engine:
        return
    engine = suite.engine
    containers = []
    for _ in range(MANY):
        containers.append(await engine.create())
        await engine.start(containers[-1])
    its = held(pid for shim in engine.shims() for pid in tree(shim)) / MANY
    print(f"  each container, shim and process: {its / 1e6:.2f} MB, {its / own:.2f} x ours")
    for each in containers:
        await engine.remove(each)


def held(pids: Iterable[int]) -> int:
    """Bytes of memory of these processes, of what is shared their part."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return total
