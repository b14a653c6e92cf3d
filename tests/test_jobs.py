"""Runs side by side: each in a process of its own, so that each fails alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fusionreid import jobs
from fusionreid.paper.experiments import plan, setting
from fusionreid.training.runs import RunFolder

# In a module of its own, so that a new process can import it by name. GAP fails, a run of seed 7 is killed, and one of
# seed 3 waits at its first time to be stopped.
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
def slurm(monkeypatch, tmp_path):
    """A Slurm whose jobs run when they are submitted; `queue` is what it says of them, at each look."""

    class Job:
        def __init__(self, folder, job_id):
            self.job_id, self.error = job_id, None
            self.paths = SimpleNamespace(
                result_pickle=tmp_path / f"{job_id}.pkl", stderr=f"{job_id}.err"
            )

        def exception(self):
            return self.error

        def cancel(self):
            found.cancelled.append(self.job_id)

    class Executor:
        def __init__(self, folder, cluster):
            self.cluster = cluster or "slurm"
            found.folders.append(folder)

        def update_parameters(self, **parameters):
            found.parameters.append(parameters)

        def map_array(self, function, *columns):
            made = [
                Job(None, f"{len(found.parameters)}_{index}") for index, _ in enumerate(columns[0])
            ]
            for job, arguments in zip(made, zip(*columns, strict=True), strict=True):
                try:
                    function(*arguments)
                except Exception as error:
                    job.error = error
                job.paths.result_pickle.touch()
            return made

    found = SimpleNamespace(folders=[], parameters=[], cancelled=[], queue=[])
    monkeypatch.setitem(
        sys.modules, "submitit", SimpleNamespace(AutoExecutor=Executor, SlurmJob=Job)
    )
    monkeypatch.setattr(jobs, "_queue", lambda: found.queue.pop(0) if found.queue else {})
    monkeypatch.setattr(jobs.time, "sleep", lambda seconds: None)
    return found


def test_a_job_a_run_on_slurm(fake, smoke, slurm, monkeypatch):
    with pytest.raises(jobs.RunsError, match="1 of 2 runs failed") as error:
        jobs.run_all("table5", smoke, processes=4, cluster={"slurm_partition": "gpu"})
    assert list(error.value.errors) == ["table5: GAP (seed 0)"]
    assert slurm.folders == [smoke.runs_root / "cluster"] and not slurm.cancelled
    assert slurm.parameters == [
        {"timeout_min": 1440, "slurm_partition": "gpu", "slurm_array_parallelism": 4}
    ]

    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r"fusionreid\[cluster\]"):
        jobs.run_all("table5", smoke, cluster="slurm")


def test_runs_in_the_queue_are_waited_for_and_those_that_left_it_are_named(
    fake, smoke, slurm, monkeypatch
):
    planned = plan("table5", smoke)
    gem, gap = (smoke.runs_root / "cluster" / f"{run.fingerprint}.job" for run in planned.values())
    gap.parent.mkdir(parents=True)
    gap.write_text("7_1")
    looks = [
        {"7_1": "PENDING"},
        {"7_1": "PENDING"},
        OSError("slurmctld is away"),
        {"7_1": "RUNNING"},
        {},
    ]

    def queue():
        if isinstance(looks[0], OSError):
            raise looks.pop(0)
        return looks.pop(0)

    monkeypatch.setattr(jobs, "_queue", queue)
    with pytest.raises(jobs.RunsError) as error:
        jobs.run_all("table5", smoke, cluster="slurm")
    assert list(error.value.errors) == ["table5: GAP (seed 0)"] and not looks
    assert error.value.errors["table5: GAP (seed 0)"].startswith("job 7_1 ended without a result")
    assert gap.read_text() == "7_1" and gem.read_text() == "1_0"


def test_jobs_are_cancelled_when_the_command_is_stopped(fake, smoke, slurm, monkeypatch):
    job = (
        smoke.runs_root
        / "cluster"
        / f"{next(iter(plan('table5', smoke).values())).fingerprint}.job"
    )
    job.parent.mkdir(parents=True)
    job.write_text("7_0")
    slurm.queue = [{"7_0": "RUNNING"}] * 3

    def stop(seconds):
        if len(slurm.queue) < 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(jobs.time, "sleep", stop)
    with pytest.raises(KeyboardInterrupt):
        jobs.run_all("table5", smoke, rows=["GeM"], cluster="slurm")
    assert slurm.cancelled == ["7_0"]


def test_states_of_runs(fake, one_by_one, slurm, tmp_path):
    chosen = setting("smoke", seeds=(0, 1, 2, 3), runs_root=tmp_path)
    planned = plan("table5", chosen, rows=["GeM"])
    assert set(jobs.states(planned, tmp_path)["state"]) == {"missing"}
    jobs.run_all("table5", setting("smoke", runs_root=tmp_path), rows=["GeM"])
    (tmp_path / "cluster").mkdir()
    for name, job in zip(list(planned)[1:], ("9_1", "9_2", "9_3"), strict=True):
        (tmp_path / "cluster" / f"{planned[name].fingerprint}.job").write_text(job)
    slurm.queue = [{"9_1": "RUNNING", "9_2": "PENDING"}]
    found = jobs.states(planned, tmp_path)
    assert list(found["state"]) == ["done", "running", "queued", "failed"]
    assert list(found["job"]) == ["", "9_1", "9_2", "9_3"] and set(found["epochs"]) == {"0/2"}
    with RunFolder(
        planned[list(planned)[3]], tmp_path
    ).held():  # by a process, as one a core of this machine
        assert list(jobs.states(planned, tmp_path)["state"])[1:] == ["failed", "failed", "running"]


def test_what_slurm_says(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert jobs._queue() == {}
    program = tmp_path / "squeue"
    program.write_text("#!/bin/sh\necho '12_3|PENDING'; echo '14|RUNNING'")
    program.chmod(0o755)
    assert jobs._queue() == {"12_3": "PENDING", "14": "RUNNING"}
    program.write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(OSError, match="squeue: Unable to contact"):
        jobs._queue()


def test_states_where_slurm_does_not_answer(smoke, monkeypatch):
    def queue():
        raise OSError("squeue: no cluster")

    monkeypatch.setattr(jobs, "_queue", queue)
    with pytest.warns(
        UserWarning, match="squeue: no cluster; jobs that wait or run there are shown as failed"
    ):
        assert set(jobs.states(plan("table5", smoke), smoke.runs_root)["state"]) == {"missing"}


@pytest.mark.filterwarnings(
    "ignore:squeue"
)  # this machine may have Slurm's commands and no cluster
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
    chosen, signalled = setting("smoke", seeds=(0, 3), runs_root=tmp_path), []

    def preempt():
        started = time.monotonic()
        while not signalled and time.monotonic() < started + 120:
            for path in tmp_path.glob("*.pid"):
                signalled.append(int(path.read_text()))
                os.kill(signalled[0], signal.SIGUSR2)
            time.sleep(0.1)

    thread = threading.Thread(target=preempt)
    thread.start()
    with pytest.raises(jobs.RunsError, match="2 of 4 runs failed") as error:
        jobs.run_all("table5", chosen, cluster="local")
    thread.join()
    assert set(error.value.errors) == {f"table5: GAP (seed {seed})" for seed in (0, 3)}
    assert all("triplet/cnn is nan" in each for each in error.value.errors.values())
    done = {found["seed"]: int(found["commit"]) for found in results(chosen)}
    assert set(done) == {0, 3} and signalled and done[3] != signalled[0], (
        "another process finished it"
    )
    assert sorted(jobs.states(plan("table5", chosen), tmp_path)["state"]) == [
        "done",
        "done",
        "failed",
        "failed",
    ]


@pytest.mark.parametrize(("disabled", "shown"), [("1", False), ("0", True)])
def test_bars_can_be_switched_off(fake, one_by_one, smoke, monkeypatch, capfd, disabled, shown):
    monkeypatch.setenv("TQDM_DISABLE", disabled)
    jobs.run_all("table5", smoke, rows=["GeM"])
    assert ("variants: " in capfd.readouterr().err) == shown
