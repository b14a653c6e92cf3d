"""Runs side by side: each in a process of its own, so that each fails alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import textwrap
import time
from types import SimpleNamespace

import pytest

from fusionreid import jobs
from fusionreid.paper.experiments import plan, setting

# In a module of its own, so that a new process can import it by name. GAP fails, and a run of seed 7 is killed.
FAKE = """
import os, signal, time
import torch
from fusionreid.files import write_json

def train(run, device, *, data_root, runs_root, threads=None):
    if run.model.fusion.pooling == "gap":
        raise FloatingPointError(f"triplet/cnn is nan in {run.fingerprint}")
    if run.seed == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    write_json(runs_root / run.fingerprint / "result.json", {
        "fingerprint": run.fingerprint, "data": {"name": run.data.name, "version": ""}, "seed": run.seed,
        "commit": str(os.getpid()), "device": f"{device}, {torch.get_num_threads()} threads", "seconds": 0.1,
        "features": {"all": {"mAP": 0.5, "rank-1": 0.75}}})

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
    monkeypatch.setattr(jobs, "on_this_machine", lambda work, runs, **_: ((n, work(r, "cpu")) for n, r in runs.items()))


@pytest.fixture
def smoke(tmp_path):
    return setting("smoke", runs_root=tmp_path / "runs")


def results(chosen):
    return [jobs.read_result(path.parent.name, chosen.runs_root) for path in chosen.runs_root.glob("*/result.json")]


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
    with pytest.raises(ValueError, match="result.json: expected the result of run .*expected JSON.*delete"):
        jobs.run_all("table4", smoke, processes=1)
    assert list(smoke.runs_root.glob("*/result.json")) == [path]


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
    assert {found["device"] for found in done} <= {f"cuda:{index}, {share} threads" for index in (0, 1)}
    assert str(os.getpid()) not in {found["commit"] for found in done}


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


def test_a_job_a_run_on_a_cluster(fake, smoke, monkeypatch):
    class Job:
        def __init__(self, function, *arguments):
            self.error, self.polls = None, 0
            try:
                function(*arguments)
            except Exception as error:
                self.error = error

        def done(self):
            self.polls += 1
            return self.polls > 1

        def exception(self):
            return self.error

    class Executor:
        def __init__(self, folder, cluster):
            self.folder, self.cluster = folder, cluster
            executors.append(self)

        def update_parameters(self, **parameters):
            self.parameters = parameters

        def map_array(self, function, *columns):
            return [Job(function, *arguments) for arguments in zip(*columns, strict=True)]

    executors = []
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(AutoExecutor=Executor))
    monkeypatch.setattr(jobs.time, "sleep", lambda seconds: None)
    with pytest.raises(jobs.RunsError, match="1 of 2 runs failed") as error:
        jobs.run_all("table5", smoke, processes=4, cluster={"slurm_partition": "gpu"})
    assert list(error.value.errors) == ["table5: GAP (seed 0)"]
    (executor,) = executors
    assert executor.folder == smoke.runs_root / "cluster"
    assert executor.parameters == {"timeout_min": 1440, "slurm_partition": "gpu", "slurm_array_parallelism": 4}

    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r"fusionreid\[cluster\]"):
        jobs.run_all("table5", smoke, cluster="slurm")


@pytest.mark.parametrize(("disabled", "shown"), [("1", False), ("0", True)])
def test_bars_can_be_switched_off(fake, one_by_one, smoke, monkeypatch, capfd, disabled, shown):
    monkeypatch.setenv("TQDM_DISABLE", disabled)
    jobs.run_all("table5", smoke, rows=["GeM"])
    assert ("variants: " in capfd.readouterr().err) == shown
