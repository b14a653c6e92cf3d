"""Several processes as one: losses, gradients, features, rankings and resumed runs are those of one
process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import accelerate
import numpy as np
import pytest
import torch
from accelerate import debug_launcher
from timm.layers import BatchNormAct2d

from fusionreid import build_model, embed, parallel, paths
from fusionreid.config import PAPER, profile
from fusionreid.evaluation.evaluate import evaluate, retrieve
from fusionreid.files import read_lines
from fusionreid.models import checkpoints
from fusionreid.training import runs, train
from fusionreid.training.losses import PaperObjective

SMOKE = profile("smoke")
# Augmentation and drop path draw for each process, so these are off where numbers are compared.
PLAIN = replace(SMOKE.train, epochs=3, evaluate_every=2, flip=0.0, padding=0, erasing=0.0)
DATA = replace(SMOKE.data, version="tiny")
RUN = runs.make_run(replace(SMOKE, train=PLAIN), replace(PAPER, drop_path=0.0), data=DATA)
RUN = runs.with_versions(RUN)
forked = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked")


def together(processes, function, *arguments):
    """Calls function(processes, *arguments) in so many processes that gloo connects; in this one if
    it is one.
    """
    if processes == 1:
        return function(1, *arguments)
    debug_launcher(_alone, (function, processes, *arguments), processes)


def _alone(function, *arguments):
    accelerate.PartialState._reset_state()  # that of the process that forked
    function(*arguments)


@pytest.fixture
def frozen(monkeypatch):
    """Batch norms keep their statistics, as on a CPU those of a batch stay with each process; none
    starts at zero.
    """

    def freeze(*arguments, real=train.build_model, **options):
        model = real(*arguments, **options)
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval().train = lambda mode=True, module=module: module
                torch.nn.init.ones_(module.weight)
        return model

    monkeypatch.setattr(train, "build_model", freeze)


def one_step(processes, folder):
    """A step of training; each process writes its loss and the gradients that it has."""
    state, device = parallel.start("cpu")
    torch.manual_seed(0)
    model = train.build_model(RUN.model, 4, 6)
    batch = torch.randn(16, 3, 64, 32), torch.arange(16) // 4, torch.arange(16) % 6
    share = [part.chunk(processes)[state.process_index] for part in batch]
    optimizer, scaler = (
        train.make_optimizer(model, PLAIN),
        torch.amp.GradScaler("cpu", enabled=False),
    )
    wrapped = parallel.wrap(model, state, device, compile=False)
    objective = PaperObjective(4, PLAIN)
    (step,) = train.train_one_epoch(
        wrapped, [share], optimizer, scaler, PLAIN, 1, objective, processes
    )
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters() if p.requires_grad}
    np.savez(folder / f"{processes}-{state.process_index}.npz", loss=step["loss"], **gradients)


@forked
@pytest.mark.parametrize("processes", [2, 4])
def test_loss_and_gradients_are_those_of_one_process(frozen, tmp_path, processes):
    together(1, one_step, tmp_path)
    together(processes, one_step, tmp_path)
    expected = np.load(tmp_path / "1-0.npz")
    assert expected["loss"] > 10 and all(np.abs(expected[name]).max() > 0 for name in expected)
    for rank_ in range(processes):
        found = np.load(tmp_path / f"{processes}-{rank_}.npz")
        for name in expected:
            scale = np.abs(expected[name]).max()
            np.testing.assert_allclose(
                found[name], expected[name], rtol=1e-3, atol=1e-4 * scale + 1e-7, err_msg=name
            )


def test_batch_norms_over_all_processes_keep_their_activations():
    """timm's BatchNormAct2d applies its activation itself; torch's conversion would lose it."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1), BatchNormAct2d(4), torch.nn.BatchNorm2d(4)
    ).eval()
    images, parameters = torch.randn(2, 3, 5, 5), dict(model.named_parameters())
    expected = model(images)
    converted = parallel.convert_sync_batchnorm(model)
    assert sum(isinstance(module, torch.nn.SyncBatchNorm) for module in converted.modules()) == 2
    assert torch.equal(converted(images), expected)
    assert all(parameters[name] is parameter for name, parameter in converted.named_parameters())


@pytest.mark.parametrize(
    "device, processes, synchronised", [("cuda", 2, True), ("cuda", 1, False), ("cpu", 2, False)]
)
def test_batch_norms_are_synchronised_on_gpus_alone(monkeypatch, device, processes, synchronised):
    monkeypatch.setattr(
        torch.nn.parallel, "DistributedDataParallel", lambda model, device_ids: model
    )
    model = build_model(RUN.model, 4, 6)
    wrapped = parallel.wrap(
        model, SimpleNamespace(num_processes=processes), torch.device(device), compile=False
    )
    norms = [
        each
        for each in wrapped.modules()
        if isinstance(each, torch.nn.modules.batchnorm._BatchNorm)
    ]
    assert norms and {isinstance(each, torch.nn.SyncBatchNorm) for each in norms} == {synchronised}


def features(processes, dataset, folder):
    """Each process writes what it got of an evaluation of 12 query and 24 gallery images."""
    state, _ = parallel.start("cpu")
    torch.manual_seed(0)
    model = build_model(RUN.model, 4, 6)
    options = {"batch_size": 5, "processes": processes}  # 5 divides nothing here
    retrieval = retrieve(model, dataset, cache_directory=folder, **options)
    ranking = retrieval.rank()
    pictures = embed(model, [record.path for record in dataset.query[:7]], batch_size=5)
    np.savez(
        folder / f"{processes}-{state.process_index}.npz",
        **{
            f"{side}/{name}": x
            for side, found in enumerate(retrieval[:2])
            for name, x in found.items()
        },
        pictures=pictures,
        average_precision=ranking.average_precision,
        first_match=ranking.first_match,
    )


@forked
@pytest.mark.parametrize("processes", [2, 4])
def test_features_are_computed_in_shares_and_rank_alike(tiny_dataset, tmp_path, processes):
    together(1, features, tiny_dataset, tmp_path)
    together(processes, features, tiny_dataset, tmp_path)
    expected = np.load(tmp_path / "1-0.npz")
    assert len(set(expected["average_precision"])) > 1
    for rank_ in range(processes):
        found = np.load(tmp_path / f"{processes}-{rank_}.npz")
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=name)


def training(processes, dataset, folder, stop=None):
    """The run, up to an epoch in which all processes fail; who writes a checkpoint is noted."""
    real_save, real_rate = checkpoints.save, train.learning_rate

    def save(*arguments, **state):
        with open(folder / "saved.txt", "a") as file:
            rank = torch.distributed.get_rank() if processes > 1 else 0
            file.write(f"process {rank}, epoch {state['epoch']}\n")
        real_save(*arguments, **state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save", save)
        patch.setattr(
            train,
            "learning_rate",
            lambda c, epoch, *f: real_rate(c, epoch, *f) if epoch != stop else 1 / 0,
        )
        roots = {"data_root": folder / "data", "runs_root": folder / "runs"}
        return train.train(RUN, dataset=dataset, device="cpu", progress=False, **roots)


@forked
def test_a_run_goes_on_in_another_number_of_processes(frozen, tiny_dataset, tmp_path):
    for name in ("one", "many"):
        (tmp_path / name).mkdir()
    one = training(1, tiny_dataset, tmp_path / "one")
    for processes, stop in ((2, 2), (4, 3)):
        with pytest.raises(Exception, match="ZeroDivisionError"):
            together(processes, training, tiny_dataset, tmp_path / "many", stop)
    many = training(1, tiny_dataset, tmp_path / "many")
    written = [f"process 0, epoch {epoch}\n" for epoch in (1, 2, 3)]
    assert (tmp_path / "many" / "saved.txt").read_text() == "".join(written)
    for kind, column in (("step", "loss"), ("evaluation", "mAP"), ("attention", "entropy")):
        expected, found = (run.metrics[run.metrics["kind"] == kind] for run in (one, many))
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-3)
        assert list(found["epoch"]) == list(expected["epoch"])
    expected, found = (checkpoints.tensors(run.model()) for run in (one, many))
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


@forked
def test_scores_are_those_of_the_saved_model_though_batch_norms_differ(tiny_dataset, tmp_path):
    """Each process has running statistics of its own, and only the first one's are saved."""
    together(2, training, tiny_dataset, tmp_path)
    folder = runs.RunFolder(RUN, tmp_path / "runs")
    found = evaluate(folder.model(), tiny_dataset, cache_directory=tmp_path)
    with np.load(folder.path / "average_precision.npz") as written:
        for name, ranking in found.items():
            np.testing.assert_allclose(written[name], ranking.average_precision, atol=1e-6)
    assert folder.result["processes"] == 2


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes in /proc")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_job(tmp_path, victim):
    sys.path.insert(0, str(paths.ROOT / "benchmarks"))
    try:
        from kills import write_pictures
    finally:
        sys.path.pop(0)
    write_pictures(tmp_path / "data" / "market1501")
    launch = "-m torch.distributed.run --nproc-per-node 2"
    launch += " --rdzv-backend c10d --rdzv-endpoint localhost:0"
    command = "-m fusionreid train --profile smoke --dataset market1501 --epochs 5000 --device cpu"
    roots = ["--data-root", str(tmp_path / "data"), "--runs-root", str(tmp_path / "runs")]
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT)}
    with open(tmp_path / "log.txt", "w") as log:
        job = subprocess.Popen(
            [sys.executable, *launch.split(), *command.split(), *roots],
            stdout=log,
            stderr=log,
            env=environment,
        )
    try:
        wait_for(
            lambda: list(tmp_path.glob("runs/*/checkpoint.safetensors")) or job.poll() is not None,
            240,
        )
        assert job.poll() is None, (tmp_path / "log.txt").read_text()
        workers = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        os.kill(int(by_rank(workers)[victim]), signal.SIGKILL)
        assert job.wait(timeout=60) == 1
    finally:
        job.kill()
    assert "Signal 9 (SIGKILL) received" in (tmp_path / "log.txt").read_text()
    (kept,) = tmp_path.glob("runs/*/checkpoint.safetensors")
    assert checkpoints.read_state(kept)["epoch"] >= 1 and not kept.with_name("result.json").exists()
    lines = read_lines(kept.with_name("metrics.jsonl"))
    assert {"step", "epoch"} <= {line["kind"] for line in lines}


def by_rank(workers):
    """The processes of a job that train, in the order of their ranks."""
    ranks = {}
    for pid in workers:
        names = dict(
            each.partition("=")[::2]
            for each in Path(f"/proc/{pid}/environ").read_text().split("\0")
        )
        if "RANK" in names:
            ranks[int(names["RANK"])] = pid
    return ranks


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.2)
