"""For all tests: the summary that says which peers were used and which were missing."""

from __future__ import annotations

import pytest

from tests import peers


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line a peer; nothing when no test asked for one."""
    if not peers.used and not peers.missing:
        return
    terminalreporter.section("peers")
    for name, what in sorted(peers.used.items()):
        terminalreporter.write_line(f"used     {name}: {what}")
    for name, (why, tests) in sorted(peers.missing.items()):
        install = peers.PEERS[name][0]
        terminalreporter.write_line(
            f"MISSING  {name}: {why}; {len(tests)} test(s) did not run. To run them: {install}",
            yellow=True,
        )
