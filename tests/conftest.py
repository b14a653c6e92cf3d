"""What every test has: one thread, no progress bars, runs of its own, no profile from outside."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from contextlib import contextmanager

import pytest

# Before anything imports torch or tqdm; the kernels of nbval and the workers of xdist inherit them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

# A shell that runs the tests in the background makes them ignore Ctrl-C, which some of them send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Trainings of the tests start from nothing: an older run in `runs/` would hide a change. This comes
# before a conftest.py of a folder imports fusionreid, which reads the variable.
RUNS_OF_TESTS = None
if "FUSIONREID_RUNS" not in os.environ:
    RUNS_OF_TESTS = os.environ["FUSIONREID_RUNS"] = tempfile.mkdtemp(prefix="fusionreid-runs-")


def pytest_unconfigure():
    if RUNS_OF_TESTS:
        shutil.rmtree(RUNS_OF_TESTS, ignore_errors=True)
        os.environ.pop("FUSIONREID_RUNS", None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """The notebooks' cells, which nbval collects, are slow: `-m "not slow"` leaves them out."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker("slow")


@pytest.fixture
def full_disk():
    """A context where no file can grow beyond so many bytes.

    A write beyond it is an OSError, as Python ignores the signal that is sent with it.
    """
    resource = pytest.importorskip("resource", reason="only Unix limits the size of files")

    @contextmanager
    def limited(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture(autouse=True)
def no_profile_from_outside(monkeypatch):
    """`make test` sets FUSIONREID_PROFILE for the notebooks; other tests name their profile."""
    monkeypatch.delenv("FUSIONREID_PROFILE", raising=False)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory):
    """Four training and four test identities, noisy colours seen by six cameras. Trains in 1 s."""
    import numpy as np
    from PIL import Image

    from fusionreid.data import Dataset, Record

    folder = tmp_path_factory.mktemp("tiny")
    random = np.random.default_rng(0)
    colours = random.integers(20, 230, (8, 3))

    def record(split, identity, label, camera):
        path = folder / f"{split}-{identity}-{camera}.png"
        pixels = (
            random.normal(colours[identity] + 8 * camera, 40, (64, 32, 3))
            .clip(0, 255)
            .astype(np.uint8)
        )
        Image.fromarray(pixels).save(path)
        return Record(path, label, camera)

    train = [record("train", i, i, camera) for i in range(4) for camera in range(6)]
    query = [record("query", i, i, camera) for i in range(4, 8) for camera in range(3)]
    gallery = [record("gallery", i, i, camera) for i in range(4, 8) for camera in range(6)]
    return Dataset("synthetic", "tiny", folder, train, query, gallery)
