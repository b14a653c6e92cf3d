"""A few kills of a training at random moments; `benchmarks/kills.py` does as many as wanted."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fusionreid import paths


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked")
def test_killed_runs_end_with_the_numbers_of_one_that_was_not(tmp_path):
    script = [sys.executable, str(paths.ROOT / "benchmarks" / "kills.py"), "--kills", "4", "--seed", "1"]
    done = subprocess.run(script, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("| all | 4 | 4 |\n")
