"""SIPp scenarios: the fixtures that start the programs of a test and show their output."""

from tests.peerlib.fixtures import crew, module_crew, pytest_runtest_makereport

__all__ = ["crew", "module_crew", "pytest_runtest_makereport"]
