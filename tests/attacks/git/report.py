"""What the attacks on git did, as a table at the end of a session."""

from typing import Any

import pytest

_WIDTH = 45


def pytest_terminal_summary(terminalreporter: Any) -> None:
    properties = [
        each
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if isinstance(report, pytest.TestReport)
        for each in report.user_properties
    ]
    rows: list[Any] = [value for name, value in properties if name == "attack"]
    races = [value for name, value in properties if name == "race"]
    if not rows and not races:
        return
    terminalreporter.section("attacks on git")
    for race in races:
        terminalreporter.line(f"race of links and directories, calls that succeeded in {race}")
    if not rows:
        return
    terminalreporter.line(f"{'attack':{_WIDTH}} {'cases':12} {'planted':8} {'cove':5} plain git")
    for attack, cases, plain, cove, planted in sorted(rows, key=lambda row: str(row[1])):
        line = f"{attack:{_WIDTH}} {cases:12} {_yes(planted):8} {_yes(cove):5} {plain or 'no'}"
        terminalreporter.line(line)
        if cove:
            terminalreporter.line(f"    {cove}")
    plain_hits, cove_hits = (sum(bool(row[column]) for row in rows) for column in (2, 3))
    terminalreporter.line(
        f"{len(rows)} attacks: plain git hit by {plain_hits}, Cove by {cove_hits}"
    )


def _yes(value: object) -> str:
    return "yes" if value else "no"
