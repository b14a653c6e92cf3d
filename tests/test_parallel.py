"""Training by several processes (`parallel_cases.py`), in an interpreter of its own.

The cases fork, and a process whose autograd has had threads cannot be forked: in a session that has
run other tests they would fail for that reason alone.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked")
def test_the_cases():
    cases = Path(__file__).with_name("parallel_cases.py")
    # Without xdist, whose worker this may be.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
        str(cases),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
