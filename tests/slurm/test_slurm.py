"""A job a run on a real Slurm: cancelled, pre-empted, finished. `make test-slurm` runs it."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fusionreid import config, jobs, paths
from fusionreid.__main__ import main
from fusionreid.models import checkpoints
from fusionreid.paper.experiments import plan, setting
from fusionreid.training.runs import RunFolder
from fusionreid.training.train import train

HERE = Path(__file__).parent
EPOCHS = 300  # of tiny trainings, which take half a minute: time enough to be pre-empted


def missing():
    """What the test lacks on this machine."""
    if not os.environ.get("FUSIONREID_SLURM"):
        return "starts a Slurm cluster of this machine alone; `make test-slurm` asks for it"
    programs = [
        name for name in ("sbatch", "slurmctld", "slurmd", "munged") if not shutil.which(name)
    ]
    if programs:
        return f"{', '.join(programs)} not found (Debian: apt install slurm-wlm munge)"
    if os.geteuid():
        return "Slurm's daemons start jobs, so this test needs root"
    return (
        ""
        if importlib.util.find_spec("submitit")
        else "submitit is not installed: pip install 'fusionreid[cluster]'"
    )


pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A cluster of one node; clients find it by SLURM_CONF, and jobs find the code."""
    folder = tmp_path / "slurm"
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(paths.ROOT), os.environ.get("PYTHONPATH", "")])
    )
    try:
        subprocess.run([HERE / "one_node.sh", "start", folder], check=True)
        yield folder
    finally:
        subprocess.run(["scancel", "--me"])
        subprocess.run([HERE / "one_node.sh", "stop", folder])


@pytest.fixture
def pictures(tmp_path):
    """Eight people of noise, as Market-1501 lies on a disk."""
    sys.path.insert(0, str(paths.ROOT / "benchmarks"))
    try:
        from kills import write_pictures
    finally:
        sys.path.pop(0)
    write_pictures(tmp_path / "data" / "market1501")
    return tmp_path / "data"


def test_a_job_a_run_is_cancelled_preempted_and_finished(slurm, pictures, tmp_path, monkeypatch):
    smoke = config.profile("smoke")
    longer = replace(smoke.train, epochs=EPOCHS, evaluate_every=EPOCHS)
    monkeypatch.setitem(config.PROFILES, "smoke", replace(smoke, train=longer))
    chosen = setting("smoke", "market1501", (0, 1), tmp_path / "runs", pictures)
    planned = plan("table5", chosen)
    command = "experiments table5 --profile smoke --dataset market1501 --seeds 0 1".split()
    command += ["--data-root", str(pictures), "--runs-root", str(chosen.runs_root)]
    command += ["--cluster", "slurm", "--processes", "2", "--job", "slurm_partition", "low"]

    def start():
        """The command in a process of its own, which has this test's longer training."""
        process = multiprocessing.get_context("fork").Process(
            target=lambda: sys.exit(main(command))
        )
        process.start()
        return process

    def table():
        return jobs.states(planned, chosen.runs_root).set_index("run")

    def explain():
        return f"{table()}\n{queue()}"

    def two_run():
        """Waits until two runs have finished an epoch and go on; returns their names."""

        def begun():
            found = table()
            return found[(found["state"] == "running") & ~found["epochs"].str.startswith("0/")]

        wait_for(lambda: len(begun()) == 2, explain)
        return list(begun().index)

    assert set(table()["state"]) == {"missing"}
    process = start()
    interrupted = two_run()  # as many as --processes says

    # Ctrl-C cancels the jobs; what they have done is kept.
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    wait_for(lambda: not queue(), explain)
    assert set(table().loc[interrupted, "state"]) == {"unfinished"}

    # The same command goes on. A more urgent job takes both places; Slurm puts the two jobs back.
    process = start()
    preempted = two_run()
    urgent = "sbatch --partition=high --ntasks=2 --output=/dev/null"
    subprocess.run([*urgent.split(), "--wrap=sleep 5"], check=True)
    wait_for(lambda: "running" not in set(table()["state"]), explain)
    folder = RunFolder(planned[preempted[0]], chosen.runs_root)
    kept = checkpoints.read_state(folder.checkpoint)["epoch"]
    before = folder.metrics.query("kind == 'epoch'")
    process.join(1200)
    assert process.exitcode == 0
    assert set(table()["state"]) == {"done"}
    assert set(table()["epochs"]) == {f"{EPOCHS}/{EPOCHS}"}
    submitted = list((chosen.runs_root / "cluster").glob("*_submitted.pkl"))
    assert len(submitted) == 8  # four by each command
    logs = [path.read_text() for path in (chosen.runs_root / "cluster").glob("*_log.out")]
    starts = [log.count("Starting with JobEnvironment") for log in logs]
    assert starts.count(2) == 2

    # A run that was pre-empted keeps its epochs, down to the time that they took, and ends with
    # the numbers of one that was not.
    epochs = folder.metrics.query("kind == 'epoch'")
    assert 0 < kept < EPOCHS == len(epochs)
    assert list(epochs["seconds"][:kept]) == list(before["seconds"][:kept])
    roots = {"data_root": pictures, "runs_root": tmp_path / "here"}
    whole = train(folder.config, device="cpu", progress=False, **roots)
    losses = [run.metrics.query("kind == 'step'")["loss"] for run in (folder, whole)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert folder.result["features"] == whole.result["features"]


def queue():
    """The jobs that wait or run, a line each."""
    command = ["squeue", "--array", "--noheader"]
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()


def wait_for(condition, explain, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, explain()
        time.sleep(0.5)
