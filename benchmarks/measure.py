"""Times several ways of doing a thing in turn, so that drift of the machine hits all alike."""

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Action: TypeAlias = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Aim:
    """What is to hold: the time of `ours` is at most so many times that of `reference`.

    Once that of `also` is taken off, which is what nobody could do without.
    """

    ours: str
    reference: str
    most: float
    also: str = ""


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


def report(
    title: str,
    medians: Mapping[str, float],
    references: list[str],
    aims: Sequence[Aim] = (),
) -> None:
    """Print each of ours against each reference that was measured; then how far each aim is."""
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
    for aim in aims:
        if aim.reference in medians:
            found = (medians[aim.ours] - medians.get(aim.also, 0.0)) / medians[aim.reference]
            held = "holds" if found <= aim.most else "is missed"
            less = f", less {aim.also}" if aim.also else ""
            print(f"  aim: {aim.ours}{less} <= {aim.most:.2f} x {aim.reference}: ", end="")
            print(f"{found:.2f} x, it {held}")
