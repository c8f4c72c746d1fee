"""Says at once which test failed: a run that is broken off has no summary."""

from typing import Final

import pytest

_LINE: Final = 300


class Failures:
    """Of the process that reports; the workers of xdist only run."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal
        self._lines: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.failed:
            return
        line = f"failed: {report.nodeid} ({report.when}): {_reason(report)}"[:_LINE]
        self._lines.append(line)
        self._terminal.ensure_newline()
        self._terminal.write_line(line)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.INTERNAL_ERROR:
            self._terminal.write_line("pytest itself broke off; until then:")
            for line in self._lines:
                self._terminal.write_line(line)


def register(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Failures(terminal))


def _reason(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else report.longreprtext
    return " ".join(text.split())
