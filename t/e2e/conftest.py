import os
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import logs  # noqa: E402


@pytest.fixture
def place():
    """A directory that service users can reach, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="postern-", ignore_cleanup_errors=True) as d:
        os.chmod(d, 0o755)
        yield d


def pytest_runtest_setup():
    logs.begin()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """With a failure come the last lines of the logs of what it started."""
    report = (yield).get_result()
    if report.failed:
        report.sections += logs.tails()
