"""Every variant is a valid configuration, the shared ones are one run, and runs side by side fail one by one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import textwrap
import time
from types import SimpleNamespace

import pytest

from fusionreid import workers
from fusionreid.config import PAPER, PROFILES
from fusionreid.paper import beside, experiments, results
from fusionreid.paper import numbers as paper
from fusionreid.paper.experiments import EXPERIMENTS, ExperimentError, run_all, variants

# In a module of its own, so that a spawned process can import it by name. GAP fails, and a seed of 7 is killed.
FAKE = """
import os, signal, time
import torch
from fusionreid.files import write_json
from fusionreid.results import features_of

def train(run, *, data_root, runs_root, device, progress):
    if run.model.fusion and run.model.fusion.pooling == "gap":
        raise FloatingPointError(f"triplet/cnn is nan in {run.fingerprint}")
    if run.seed == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    accuracy = {"mAP": 0.5, "rank-1": 0.75, "rank-5": 0.8, "rank-10": 0.9, "mINP": 0.2, "mAP_trapezoid": 0.49}
    device = f"{device}, {torch.get_num_threads()} threads, {os.environ.get('OMP_NUM_THREADS')}"
    write_json(runs_root / run.fingerprint / "result.json", {
        "fingerprint": run.fingerprint, "data": {"name": run.data.name, "version": ""}, "seed": run.seed,
        "commit": str(os.getpid()), "device": device, "seconds": 0.1,
        "features": {feature: accuracy for feature in features_of(run.model)}})

def wait(seconds, slot):
    time.sleep(seconds)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    monkeypatch.delenv("FUSIONREID_PROFILE", raising=False)
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "fake_training.py").write_text(textwrap.dedent(FAKE))
    monkeypatch.syspath_prepend(str(tmp_path / "module"))
    monkeypatch.delitem(sys.modules, "fake_training", raising=False)
    import fake_training

    return fake_training


@pytest.mark.parametrize(("name", "count"), list(zip(EXPERIMENTS, (4, 7, 4, 4, 2, 15, 6, 5), strict=True)))
def test_variants_are_the_papers_rows(name, count):
    found = variants(name)
    assert len(found) == len({variant.name for variant in found}) == count
    assert len({variant.config for variant in found}) == count
    assert [variant.name for variant in found] == list(paper.reported(name))
    for variant in found:
        assert variant.reported == paper.reported(name)[variant.name]


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_variant_has_its_place_in_every_profile(name, profile):
    scaled = [PROFILES[profile].run(variant.config) for variant in variants(name)]
    assert len({run.fingerprint for run in scaled}) == len(scaled)
    for run in scaled:
        if run.model.fusion:
            assert run.model.fusion.dim % run.model.fusion.heads == 0


def test_variants_that_tables_share_are_trained_once():
    runs = experiments.plan(EXPERIMENTS, "smoke", seeds=(0, 1))
    total = sum(len(variants(name)) for name in EXPERIMENTS)
    assert total == 47 and len(runs) == 2 * 36
    (full,) = [name for name, run in runs.items() if run == PROFILES["smoke"].run(PAPER)]
    assert full == (
        "table1: FusionReID* = table2: FusionReID* = table3: SEU, MFU = table4: SEU shared, MFU unshared = "
        "table5: GeM = table6: ResNet50 + ViT-B/16* = figure5: L = 2 = figure6: D = 768 (seed 0)"
    )


def test_reported_is_the_papers():
    first = variants("table2")[0]
    assert first.reported == {"mAP": 54.3, "rank-1": 78.1, "parameters": 23.5, "macs": 4.1}
    assert first.config.transformer is None and first.config.fusion is None
    misprints = [variant.name for name in EXPERIMENTS for variant in variants(name) if "misprint" in variant.note]
    assert misprints == ["ResNet101 + T2T-ViT-14"]


def test_unknown_names_list_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="'table7'.*'table1'.*'figure6'"):
        variants("table7")
    with pytest.raises(ValueError, match="'tiny'.*'smoke'"):
        run_all("table5", "tiny", runs_root=tmp_path)


def test_one_process_is_this_one(fake, tmp_path):
    done = run_all("table4", "smoke", processes=1, devices=["cpu"], runs_root=tmp_path, train=fake.train)
    assert set(done["status"]) == {"trained"} and len(done) == 4
    assert set(results.load(tmp_path)["commit"]) == {str(os.getpid())}
    assert set(results.load(tmp_path)["device"].str.split(", ").str[:2].str.join(", ")) == {"cpu, 1 threads"}


def test_finished_runs_are_loaded_and_a_deleted_one_is_run_again(fake, tmp_path):
    options = dict(processes=1, runs_root=tmp_path, train=fake.train)
    run_all("table3", "smoke", **options)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}
    assert set(run_all("table3", "smoke", **options)["status"]) == {"loaded"}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")} == times
    gone = PROFILES["smoke"].run(variants("table3")[2].config).fingerprint
    (tmp_path / gone / "result.json").unlink()
    done = run_all("table3", "smoke", **options)
    assert list(done.loc[done["status"] == "trained", "fingerprint"]) == [gone]


def test_a_damaged_result_stops_before_anything_is_trained(fake, tmp_path):
    path = tmp_path / PROFILES["smoke"].run(PAPER).fingerprint / "result.json"
    path.parent.mkdir()
    path.write_text('{"fingerprint": "')
    with pytest.raises(ValueError, match="result.json: expected JSON") as error:
        run_all("table4", "smoke", processes=1, runs_root=tmp_path, train=fake.train)
    assert str(path) in str(error.value)
    assert list(tmp_path.glob("*/result.json")) == [path]


def test_side_by_side_each_failure_is_its_own(fake, tmp_path, capfd):
    with pytest.raises(ExperimentError) as error:
        run_all(["table5"], "smoke", seeds=(7, 0), processes=2, devices=["cpu"], runs_root=tmp_path, train=fake.train)
    assert len(error.value.errors) == 3
    assert "3 of 4 runs failed" in str(error.value)
    killed, gap = "table5: GeM (seed 7)", "table5: GAP (seed 0)"
    assert "SIGKILL" in error.value.errors[killed] and "out of memory" in error.value.errors[killed]
    assert "FloatingPointError: triplet/cnn is nan" in error.value.errors[gap]
    assert f"{gap} failed: FloatingPointError" in "".join(capfd.readouterr())
    table = results.collect("table5", "smoke", seeds=(7, 0), runs_root=tmp_path).set_index("variant")
    assert table.loc["GeM", "runs"] == 1 and table.loc["GAP", "runs"] == 0
    (worker,) = set(results.load(tmp_path)["commit"])
    assert worker != str(os.getpid())
    assert set(results.load(tmp_path)["device"]) == {"cpu, 1 threads, 1"}


def test_ctrl_c_stops_the_processes(fake):
    started = time.monotonic()

    def interrupt(index, error):
        assert (index, error) == (0, None)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        workers.spread(fake.wait, [0, 300], ["cpu"], report=interrupt)
    assert time.monotonic() - started < 100
    assert not multiprocessing.active_children()


def test_threads_of_workers_do_not_reach_this_process(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with workers._environment(1):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "3" and "MKL_NUM_THREADS" not in os.environ


def test_a_job_a_run_on_a_cluster(fake, tmp_path, monkeypatch):
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
    monkeypatch.setattr(workers.time, "sleep", lambda seconds: None)
    options = dict(processes=4, runs_root=tmp_path, train=fake.train)
    with pytest.raises(ExperimentError, match="1 of 2 runs failed") as error:
        run_all("table5", "smoke", cluster={"slurm_partition": "gpu"}, **options)
    assert list(error.value.errors) == ["table5: GAP (seed 0)"]
    (executor,) = executors
    assert executor.folder == tmp_path / "cluster"
    assert executor.parameters == {"timeout_min": 1440, "slurm_partition": "gpu", "slurm_array_parallelism": 4}

    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r"fusionreid\[cluster\]"):
        run_all("table5", "smoke", cluster="slurm", **options)


def test_the_paper_profile_starts_from_pretrained_weights(tmp_path):
    seen = []
    options = dict(processes=1, devices=["cpu"], runs_root=tmp_path)
    for profile in ("smoke", "paper"):
        run_all("table5", profile, train=lambda run, **given: seen.append(run.cnn_weights), **options)
    assert seen == ["random", "random", "imagenet", "imagenet"]


@pytest.mark.parametrize(("disabled", "shown"), [("1", False), ("0", True)])
def test_bars_can_be_switched_off(fake, tmp_path, monkeypatch, capfd, disabled, shown):
    monkeypatch.setenv("TQDM_DISABLE", disabled)
    run_all("table5", "smoke", rows=["GeM"], train=fake.train, processes=1, runs_root=tmp_path)
    assert ("variants: " in capfd.readouterr().err) == shown


def test_what_there_is_to_run(fake, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments, "_prepare", lambda jobs, data_root: None)
    options = dict(profile="smoke", runs_root=tmp_path)
    run_all("table2", rows=["DFE + LRU"], train=fake.train, processes=1, progress=False, **options)
    listed = beside.expected("table2", dataset="synthetic", **options).set_index("row")
    assert listed["ours mAP"].dropna().to_dict() == {"DFE + LRU": 50.0}
    assert listed.loc["DFE + LRU", "paper mAP"] == 67.7 and set(listed["paper data"]) == {"msmt17"}
    assert listed.loc["DFE + LRU", "run"] in {path.name for path in tmp_path.iterdir()}
    arguments = ["--profile", "paper", "--dataset", "dukemtmc", "--runs-root", str(tmp_path)]
    assert experiments.main(["table1", "--list", *arguments, "--rows", "FusionReID ↑"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 2 and "83.5" in lines[1] and "dukemtmc" in lines[1]


def test_command_line(fake, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments, "_prepare", lambda jobs, data_root: None)
    monkeypatch.setattr("fusionreid.training.train.train", fake.train)
    arguments = ["--profile", "smoke", "--processes", "1", "--devices", "cpu", "--runs-root", str(tmp_path)]
    assert experiments.main(["table4", "figure6", *arguments]) == 0
    text = capsys.readouterr().out
    assert "Table IV" in text and "Fig. 6" in text and "not run" not in text
    assert experiments.main(["table5", *arguments]) == 1  # GAP fails, and the table has a gap
    written = capsys.readouterr()
    assert "1 of 2 runs failed" in written.err and "not run" in written.out
    assert experiments.main(["table5", *arguments, "--profile", "tiny"]) == 2
    assert "'smoke', 'demo', 'paper'" in capsys.readouterr().err
    assert experiments.main(["table5", *arguments, "--rows", "GeM"]) == 0  # without the row that fails
    assert "not run" in capsys.readouterr().out
    assert experiments.main(["table5", *arguments, "--rows", "GMP"]) == 2
    assert "row='GMP' is not known; it is one of: 'GeM', 'GAP'" in capsys.readouterr().err
    monkeypatch.setattr(experiments, "run_all", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    assert experiments.main(["table5", *arguments]) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        experiments.main(["table7", *arguments])
