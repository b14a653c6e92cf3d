"""What every test has: one thread, no progress bars, a runs folder of its own, and no profile from outside."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest

# Before anything imports torch or tqdm; the kernels of nbval and the workers of xdist inherit them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")


def pytest_configure(config):
    """Trainings of the tests start from nothing: a run that older code left in `runs/` would hide what changed."""
    if "FUSIONREID_RUNS" not in os.environ:
        os.environ["FUSIONREID_RUNS"] = config.runs_of_tests = tempfile.mkdtemp(prefix="fusionreid-runs-")


def pytest_unconfigure(config):
    if folder := getattr(config, "runs_of_tests", None):
        shutil.rmtree(folder, ignore_errors=True)
        del os.environ["FUSIONREID_RUNS"]


@pytest.fixture(autouse=True)
def no_profile_from_outside(monkeypatch):
    """`make test` sets FUSIONREID_PROFILE for the notebooks; tests of functions say which profile they mean."""
    monkeypatch.delenv("FUSIONREID_PROFILE", raising=False)
