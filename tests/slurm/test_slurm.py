"""The grid on a real Slurm: submitted, pre-empted, left alone, cancelled, collected. `make test-slurm` runs it."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import shutil
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
        return "starts a Slurm cluster of this machine alone, for some minutes; `make test-slurm` asks for it"
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


def test_a_grid_is_submitted_preempted_cancelled_and_collected(
    slurm, pictures, tmp_path, monkeypatch, capsys
):
    smoke = config.profile("smoke")
    longer = replace(smoke.train, epochs=EPOCHS, evaluate_every=EPOCHS)
    monkeypatch.setitem(config.PROFILES, "smoke", replace(smoke, train=longer))
    chosen = setting("smoke", "market1501", (0, 1), tmp_path / "runs", pictures)
    planned = plan("table5", chosen)
    command = "experiments table5 --profile smoke --dataset market1501 --seeds 0 1".split()
    command += ["--data-root", str(pictures), "--runs-root", str(chosen.runs_root)]
    submit = [*command, "--cluster", "slurm", "--processes", "2", "--job", "slurm_partition", "low"]

    looked = tmp_path / "looked"

    def submitting():
        def queue(real=jobs._queue):
            states = real()
            looked.touch()
            return states

        jobs._queue = queue
        sys.exit(main(submit))

    def start():
        """The command in a process of its own, once it has looked at the queue."""
        looked.unlink(missing_ok=True)
        process = multiprocessing.get_context("fork").Process(target=submitting)
        process.start()
        wait_for(looked.exists, squeue)
        return process

    def table():
        return jobs.states(planned, chosen.runs_root).set_index("run")

    def state(*wanted):
        """Waits for such states, in any order, and returns the table."""
        wait_for(
            lambda: sorted(table()["state"]) == sorted(wanted), lambda: f"{table()}\n{squeue()}"
        )
        return table()

    assert set(table()["state"]) == {"missing"}
    first = start()
    begun = state("running", "running", "queued", "queued")
    running = list(begun.index[begun["state"] == "running"])
    wait_for(
        lambda: all(not e.startswith("0/") for e in table().loc[running, "epochs"]),
        lambda: str(table()),
    )

    # The command is killed, so it cancels nothing; a more urgent job takes both places; then the same command again.
    first.kill()
    subprocess.run(
        ["sbatch", "--partition=high", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 5"],
        check=True,
    )
    state("queued", "queued", "queued", "queued")
    preempted = RunFolder(planned[running[0]], chosen.runs_root)
    kept, before = (
        checkpoints.read_state(preempted.checkpoint)["epoch"],
        preempted.metrics.query("kind == 'epoch'"),
    )
    again = start()
    now = state("running", "running", "queued", "queued")

    # One that still waits is cancelled. The command says so, and the others end.
    cancelled = next(name for name in now.index[now["state"] == "queued"] if name != running[0])
    subprocess.run(["scancel", table().loc[cancelled, "job"]], check=True)
    again.join(1200)
    assert again.exitcode == 1
    ended = table()
    assert ended.loc[cancelled, "state"] == "failed" and sorted(ended["state"]) == [
        "done",
        "done",
        "done",
        "failed",
    ]
    assert main([*command, "--status"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[-2].split() == ["done", "3"] and shown.splitlines()[-1].split() == [
        "failed",
        "1",
    ]

    assert main(submit) == 0
    assert set(table()["state"]) == {"done"} and set(table()["epochs"]) == {f"{EPOCHS}/{EPOCHS}"}
    submitted = [path.name for path in (chosen.runs_root / "cluster").glob("*_submitted.pkl")]
    assert len(submitted) == 5, submitted  # each run once, and the cancelled one again

    # The run that was pre-empted kept its epochs, down to the time that they took, and has the numbers of one that
    # was not.
    log = chosen.runs_root / "cluster" / f"{ended.loc[running[0], 'job']}_0_log.out"
    assert log.read_text().count("Starting with JobEnvironment") == 2
    epochs = preempted.metrics.query("kind == 'epoch'")
    assert 0 < kept < EPOCHS == len(epochs)
    assert list(epochs["seconds"][:kept]) == list(before["seconds"][:kept])
    roots = {"data_root": pictures, "runs_root": tmp_path / "here"}
    whole = train(preempted.config, device="cpu", progress=False, **roots)
    losses = [each.metrics.query("kind == 'step'")["loss"] for each in (preempted, whole)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert preempted.result["features"] == whole.result["features"]


def squeue():
    return subprocess.run(["squeue", "--array"], capture_output=True, text=True).stdout


def wait_for(condition, explain, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, explain()
        time.sleep(0.5)
