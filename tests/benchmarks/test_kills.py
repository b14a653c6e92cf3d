"""A few kills at random moments, of training and of rendering; `benchmarks/kills.py` does more."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fusionreid import paths


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked")
@pytest.mark.parametrize(("of", "kills"), [("train", 4), ("render", 2)])
def test_what_was_killed_ends_as_what_was_not(tmp_path, of, kills):
    if of == "render":
        pytest.importorskip("anny")
    command = [sys.executable, str(paths.ROOT / "benchmarks" / "kills.py")]
    command += ["--of", of, "--kills", str(kills), "--seed", "1"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"| all | {kills} | {kills} |\n")
