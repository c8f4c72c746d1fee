"""Times several ways of doing a thing in turn, so that drift of the machine hits all alike."""

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

Action: TypeAlias = Callable[[], Awaitable[object]]


async def interleaved(
    actions: Mapping[str, Action], *, rounds: int, warmup: int = 3
) -> Mapping[str, float]:
    """Median seconds of each action over `rounds`, each round doing every action once.

    An action that returns a float says itself how many seconds of it count.
    """
    samples: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(warmup + rounds):
        for name, action in actions.items():
            began = time.perf_counter()
            told = await action()
            took = told if isinstance(told, float) else time.perf_counter() - began
            if number >= warmup:
                samples[name].append(took)
    return {name: statistics.median(each) for name, each in samples.items()}


def report(title: str, medians: Mapping[str, float], references: list[str]) -> None:
    """Print each of ours against each reference that was measured."""
    print(f"\n{title}")
    for name, seconds in medians.items():
        if name in references:
            continue
        for reference in references:
            if reference in medians:
                ratio = seconds / medians[reference]
                print(
                    f"  {name:38} {ratio:8.2f} x {reference:30}"
                    f" ({seconds * 1000:.2f} ms against {medians[reference] * 1000:.2f} ms)"
                )
