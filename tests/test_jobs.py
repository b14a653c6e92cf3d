"""Runs side by side: each in a process of its own, so that each fails alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from fusionreid import jobs
from fusionreid.paper.experiments import plan, setting
from fusionreid.training.runs import RunFolder

# In a module of its own, so that a new process can import it by name. GAP fails, a run of seed 7 is
# killed, and one of seed 3 waits at its first time to be stopped.
FAKE = """
import os, signal, time
import torch
from fusionreid.files import write_json

def train(run, device, *, data_root, runs_root, objective=None):
    if run.model.fusion.pooling == "gap":
        raise FloatingPointError(f"triplet/cnn is nan in {run.fingerprint}")
    if run.seed == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    if run.seed == 3 and not (waiting := runs_root / f"{run.fingerprint}.pid").exists():
        waiting.with_suffix(".new").write_text(str(os.getpid()))
        waiting.with_suffix(".new").rename(waiting)
        time.sleep(300)
    write_json(runs_root / run.fingerprint / "result.json", {
        "fingerprint": run.fingerprint,
        "data": {"name": run.data.name, "version": ""},
        "seed": run.seed,
        "commit": str(os.getpid()),
        "device": f"{device}, {torch.get_num_threads()} threads",
        "seconds": 0.1,
        "features": {"all": {"mAP": 0.5, "rank-1": 0.75}},
    })

def wait(folder, device):
    try:
        (folder / str(os.getpid())).touch()
        time.sleep(300)
    finally:
        (folder / str(os.getpid())).unlink()
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The fake training in place of the real one, in this process and in the new ones."""
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "fake_training.py").write_text(textwrap.dedent(FAKE))
    monkeypatch.syspath_prepend(str(tmp_path / "module"))
    monkeypatch.delitem(sys.modules, "fake_training", raising=False)
    import fake_training

    monkeypatch.setattr(jobs, "_train", fake_training.train)
    monkeypatch.setattr(jobs, "open_data", lambda data, root: None)
    return fake_training


@pytest.fixture
def one_by_one(monkeypatch):
    """Runs in this process: new ones take seconds to start."""
    monkeypatch.setattr(
        jobs,
        "on_this_machine",
        lambda work, runs, **_: ((n, work(r, "cpu")) for n, r in runs.items()),
    )


@pytest.fixture
def smoke(tmp_path):
    return setting("smoke", runs_root=tmp_path / "runs")


def results(chosen):
    return [
        jobs.read_result(path.parent.name, chosen.runs_root)
        for path in chosen.runs_root.glob("*/result.json")
    ]


def test_finished_runs_are_loaded_and_a_deleted_one_is_run_again(fake, one_by_one, smoke):
    done = jobs.run_all("table3", smoke)
    assert set(done["status"]) == {"trained"} and len(done) == 4
    assert set(jobs.run_all("table3", smoke)["status"]) == {"loaded"}
    gone = done["fingerprint"][2]
    (smoke.runs_root / gone / "result.json").unlink()
    done = jobs.run_all("table3", smoke)
    assert list(done.loc[done["status"] == "trained", "fingerprint"]) == [gone]


def test_a_damaged_result_stops_before_anything_is_trained(fake, smoke):
    (run,) = plan("table5", smoke, rows=["GeM"]).values()
    path = smoke.runs_root / run.fingerprint / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"fingerprint": "')
    with pytest.raises(
        ValueError, match="result.json: expected the result of run .*expected JSON.*delete"
    ):
        jobs.run_all("table4", smoke, processes=1)
    assert list(smoke.runs_root.glob("*/result.json")) == [path]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_each_run_fails_alone(fake, tmp_path, capfd):
    chosen = setting("smoke", seeds=(7, 0, 1), runs_root=tmp_path)
    with pytest.raises(jobs.RunsError, match="4 of 6 runs failed") as error:
        jobs.run_all("table5", chosen, devices=["cuda:0", "cuda:1"])
    killed, gap = "table5: GeM (seed 7)", "table5: GAP (seed 0)"
    assert "was killed" in error.value.errors[killed]
    assert "FloatingPointError: triplet/cnn is nan" in error.value.errors[gap]
    assert f"{gap} failed: FloatingPointError" in "".join(capfd.readouterr())
    done = results(chosen)
    assert sorted(found["seed"] for found in done) == [0, 1]
    share = max(1, jobs.cores() // 2)
    assert {found["device"] for found in done} <= {
        f"cuda:{index}, {share} threads" for index in (0, 1)
    }
    assert str(os.getpid()) not in {found["commit"] for found in done}


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_ctrl_c_stops_the_processes_and_what_they_do(fake, tmp_path):
    (tmp_path / "working").mkdir()
    ended = jobs.on_this_machine(fake.wait, {"a": tmp_path / "working"}, None, ["cpu"])

    def interrupt(*_):
        if list((tmp_path / "working").iterdir()):
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, 0.1)

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            next(ended)
    finally:
        signal.signal(signal.SIGALRM, before)
    stop = time.monotonic() + 60
    while multiprocessing.active_children() and time.monotonic() < stop:
        time.sleep(0.1)
    assert not multiprocessing.active_children() and not list((tmp_path / "working").iterdir())


@pytest.fixture
def slurm(monkeypatch):
    """In place of submitit: its jobs run when they are submitted, and end at once."""
    seen = SimpleNamespace(folders=[], parameters=[], cancelled=[])

    def submit(work, run, device):
        error = None
        try:
            work(run, device)
        except Exception as caught:
            error = caught
        cancel = partial(seen.cancelled.append, run.fingerprint)
        return SimpleNamespace(job_id=run.fingerprint, exception=lambda: error, cancel=cancel)

    class Executor:
        def __init__(self, folder, cluster):
            self.cluster = cluster
            seen.folders.append(folder)

        def update_parameters(self, **parameters):
            seen.parameters.append(parameters)

        def map_array(self, work, runs, devices):
            return [submit(work, run, device) for run, device in zip(runs, devices, strict=True)]

    seen.helpers = SimpleNamespace(as_completed=lambda jobs, poll_frequency: iter(jobs))
    module = SimpleNamespace(AutoExecutor=Executor, helpers=seen.helpers)
    monkeypatch.setitem(sys.modules, "submitit", module)
    return seen


def test_a_job_a_run_on_slurm(fake, smoke, slurm):
    needs = {"cluster": "slurm", "slurm_partition": "gpu"}
    with pytest.raises(jobs.RunsError, match="1 of 2 runs failed") as error:
        jobs.run_all("table5", smoke, processes=4, cluster=needs)
    assert list(error.value.errors) == ["table5: GAP (seed 0)"]
    assert slurm.folders == [smoke.runs_root / "cluster"] and not slurm.cancelled
    assert slurm.parameters == [
        {"timeout_min": 1440, "slurm_partition": "gpu", "slurm_array_parallelism": 4}
    ]
    assert list(jobs.states(plan("table5", smoke), smoke.runs_root)["state"]) == ["done", "missing"]


def test_jobs_are_cancelled_when_the_command_is_stopped(fake, smoke, slurm):
    def interrupted(jobs, poll_frequency):
        yield jobs[0]
        raise KeyboardInterrupt

    slurm.helpers.as_completed = interrupted
    _, waiting = plan("table5", smoke).values()
    with pytest.raises(KeyboardInterrupt):
        jobs.run_all("table5", smoke, cluster={"cluster": "slurm"})
    assert slurm.cancelled == [waiting.fingerprint]


def test_a_cluster_needs_submitit(fake, smoke, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r"fusionreid\[cluster\]"):
        jobs.run_all("table5", smoke, cluster={"cluster": "slurm"})


def test_states_of_runs(fake, one_by_one, tmp_path):
    chosen = setting("smoke", seeds=(0, 1, 2, 3), runs_root=tmp_path)
    planned = plan("table5", chosen, rows=["GeM"])
    assert set(jobs.states(planned, tmp_path)["state"]) == {"missing"}
    jobs.run_all("table5", setting("smoke", runs_root=tmp_path), rows=["GeM"])
    _, begun, waiting, _ = planned.values()
    (tmp_path / begun.fingerprint).mkdir()
    with RunFolder(waiting, tmp_path).held():  # as a training holds it
        table = jobs.states(planned, tmp_path)
    assert list(table["run"]) == list(planned)
    assert list(table["state"]) == ["done", "unfinished", "running", "missing"]
    assert set(table["epochs"]) == {"0/2"}
    assert list(jobs.states(planned, tmp_path)["state"])[2] == "unfinished"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_submitit_runs_jobs_and_puts_a_preempted_one_back(fake, tmp_path, monkeypatch):
    """Its local executor, which tells a job to stop by the signal that Slurm would send."""
    pytest.importorskip(
        "submitit", reason="submitit is not installed: pip install 'fusionreid[cluster]'"
    )
    places = [
        str(Path(fake.__file__).parent),
        str(Path(__file__).parents[1]),
        os.environ.get("PYTHONPATH", ""),
    ]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    chosen = setting("smoke", seeds=(0, 3), runs_root=tmp_path)
    signalled = []
    ended = threading.Event()

    def preempt():
        while not signalled and not ended.wait(0.1):
            for path in tmp_path.glob("*.pid"):
                signalled.append(int(path.read_text()))
                os.kill(signalled[0], signal.SIGUSR2)

    thread = threading.Thread(target=preempt)
    thread.start()
    try:
        with pytest.raises(jobs.RunsError, match="2 of 4 runs failed") as error:
            jobs.run_all("table5", chosen, cluster={"cluster": "local"})
    finally:
        ended.set()
    thread.join()
    assert set(error.value.errors) == {f"table5: GAP (seed {seed})" for seed in (0, 3)}
    assert all("triplet/cnn is nan" in each for each in error.value.errors.values())
    done = {found["seed"]: int(found["commit"]) for found in results(chosen)}
    assert set(done) == {0, 3} and signalled and done[3] != signalled[0], (
        "another process finished it"
    )


@pytest.mark.parametrize(("disabled", "shown"), [("1", False), ("0", True)])
def test_bars_can_be_switched_off(fake, one_by_one, smoke, monkeypatch, capfd, disabled, shown):
    monkeypatch.setenv("TQDM_DISABLE", disabled)
    jobs.run_all("table5", smoke, rows=["GeM"])
    assert ("variants: " in capfd.readouterr().err) == shown
