"""A few kills at random moments, of a training and of rendering; `benchmarks/kills.py` does as many as wanted."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fusionreid import paths


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked")
@pytest.mark.parametrize(("of", "kills"), [("train", 4), ("render", 2)])
def test_what_was_killed_ends_as_what_was_not(tmp_path, of, kills):
    if of == "render":
        pytest.importorskip("anny")
    script = [
        sys.executable,
        str(paths.ROOT / "benchmarks" / "kills.py"),
        "--of",
        of,
        "--kills",
        str(kills),
    ]
    script += ["--seed", "1"]
    done = subprocess.run(
        script, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"| all | {kills} | {kills} |\n")
