"""Processes, the cores that they may use, and their progress bars."""

from __future__ import annotations

import os
import time

import pytest
import torch

from fusionreid.processes import bars, cores, pool, speed


def test_the_environment_lowers_the_number_of_cores_and_never_raises_it(monkeypatch):
    monkeypatch.delenv("FUSIONREID_CORES", raising=False)
    there = cores()
    for asked, expected in [("1", 1), ("", there), (str(there), there), (str(there + 1), there)]:
        monkeypatch.setenv("FUSIONREID_CORES", asked)
        assert cores() == expected


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_of_cores_names_the_variable(monkeypatch, wrong):
    monkeypatch.setenv("FUSIONREID_CORES", wrong)
    with pytest.raises(
        ValueError, match=f"FUSIONREID_CORES: expected a number of cores, found '{wrong}'"
    ):
        cores()


@pytest.mark.parametrize(
    "variable, shown", [(None, True), ("", True), ("0", True), ("1", False), ("yes", False)]
)
def test_bars_are_switched_off_by_the_environment(monkeypatch, variable, shown):
    if variable is None:
        monkeypatch.delenv("TQDM_DISABLE", raising=False)
    else:
        monkeypatch.setenv("TQDM_DISABLE", variable)
    assert bars(True) == shown
    assert not bars(False)


@pytest.mark.slow
def test_a_pool_has_its_own_threads_and_ends_when_its_work_is_left(tmp_path):
    with pytest.raises(ZeroDivisionError), pool(1, threads=2) as executor:
        other = executor.submit(os.getpid).result()
        assert other != os.getpid()
        assert executor.submit(torch.get_num_threads).result() == 2
        waiting = executor.submit(time.sleep, 300)
        raise ZeroDivisionError
    end = time.monotonic() + 60
    while not waiting.done():
        assert time.monotonic() < end, "the process sleeps on"
        time.sleep(0.1)


def test_a_speed_is_images_a_second():
    assert speed(3000, 1.5) == "3,000 images in 1.5 s, 2,000 images/s"
    assert speed(0, 0.0) == "0 images in 0.0 s, 0 images/s"
