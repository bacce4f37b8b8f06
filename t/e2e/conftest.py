import os
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture
def place():
    """A directory that service users can reach, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="postern-", ignore_cleanup_errors=True) as d:
        os.chmod(d, 0o755)
        yield d
