"""Real peers: the fixtures that start the programs of a test and show their output."""

from tests.peerlib.fixtures import crew, pytest_runtest_makereport

__all__ = ["crew", "pytest_runtest_makereport"]
