"""The training loop (Sec. IV.B), top to bottom: batch, losses by name, backward, step, log, evaluate, save."""

from __future__ import annotations

import math
import sys
import time
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import accelerate
import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from .. import paths
from ..config import DataConfig, TrainConfig
from ..data import Augment, Dataset, IdentityBatches, ImageCache, open_dataset, prefetch
from ..evaluation.evaluate import autocast, default_device, evaluate
from ..files import atomic_write, locked, read_lines, write_json
from ..models.fusionreid import FusionReID, Output, build_model
from ..models.pretrained import load_weights
from ..processes import bars
from . import checkpoint
from .losses import objective
from .parallel import gather, wrap
from .runs import RunConfig, RunFolder, append_lines, describe, environment, write_lines

# How long processes wait for the first one, which alone renders, decodes and evaluates.
PATIENCE = timedelta(hours=6)


def seed_everything(seed: int, *streams: int) -> int:
    """Seeds Python-independent randomness (torch, and numpy's global state) from (seed, *streams); returns the seed."""
    mixed = int(np.random.SeedSequence((seed, *streams)).generate_state(1, np.uint32)[0])
    torch.manual_seed(mixed)
    np.random.seed(mixed)
    return mixed


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """The learning rate of an epoch, counted from 1.

    "paper" (Sec. IV.B): from `learning_rate_start`, linearly to `learning_rate` in `warmup_epochs`, then a cosine
    over the epochs that are left. "released": the released code's curve, whose cosine runs over all epochs, so that
    it joins the warm-up a little under the peak.
    """
    low, peak, end = config.learning_rate_start, config.learning_rate, config.learning_rate_end
    warmup = config.warmup_epochs
    done = epoch - 1 if config.schedule == "paper" else epoch
    if done < warmup:
        return low + (peak - low) * done / warmup
    skipped = warmup if config.schedule == "paper" else 0
    return end + (peak - end) * 0.5 * (1 + math.cos(math.pi * (done - skipped) / (config.epochs - skipped)))


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW; biases in a group of their own, at `bias_learning_rate` times the learning rate."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for name, p in trained if not name.endswith("bias")], "factor": 1.0},
        {"params": [p for name, p in trained if name.endswith("bias")], "factor": config.bias_learning_rate},
    ]
    if config.optimizer == "adamw":
        betas = (config.momentum, 0.95)  # 0.999 diverges now and then in so few steps
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, weight_decay=config.weight_decay)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay)


def open_data(config: DataConfig, data_root: str | Path) -> Dataset:
    """The data set of a run; the synthetic one is rendered if it is not there."""
    if config.name == "synthetic":
        from ..data.synthetic import build as synthetic

        synthetic.ensure(config, data_root)
    return open_dataset(config.name, data_root, size=config.size, seed=config.seed)


def starting_model(run: RunConfig, dataset: Dataset, folder: Path | None = None) -> FusionReID:
    """The model with the weights that training starts from; what was loaded from files is printed, and written to
    `weights.txt` in `folder` if there is one."""
    sources = {"cnn": run.cnn_start.source, "transformer": run.transformer_start.source}
    fetched = [name for name, source in sources.items() if source == "imagenet"]
    files = {name: source for name, source in sources.items() if source not in ("random", "imagenet")}
    model = build_model(run.model, dataset.num_identities, dataset.num_cameras, pretrained=fetched)
    reports = "\n".join(f"{name}: {report}" for name, report in load_weights(model, **files).items())
    if reports and folder:
        print(reports)
        with atomic_write(folder / "weights.txt") as temporary:
            temporary.write_text(f"{reports}\n")
    return model


def train(
    run: RunConfig,
    *,
    dataset: Dataset | None = None,
    data_root: str | Path | None = None,
    runs_root: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    resume: bool = True,
    compile: bool = False,
) -> RunFolder:
    """Trains a configuration and evaluates it at its last epoch, or loads it if that was done before.

    A run that was cut off goes on after its last finished epoch, to the same numbers: every epoch draws its
    randomness from (seed, epoch) alone. Under `accelerate launch` the loss and its mining see the whole batch
    of all processes.

    Args:
        dataset: the data, if it is open already; default: `run.data` under `data_root`.
        device: default: the GPU, if there is one.
        resume: False starts anew, over what an unfinished run left.
        compile: `torch.compile` the model; worth it for long runs on a GPU.

    Returns:
        The run's folder: `.result`, `.metrics`, `.model()`.

    Raises:
        FloatingPointError: naming the term, epoch and step, if a loss is not finite; the last checkpoint stays.
        FileNotFoundError, ValueError, OSError: for data that is not there or not right or of another version than the
            run's, and disks that are full.
    """
    data_root = Path(data_root or paths.DATA)
    folder = RunFolder(run, Path(runs_root or paths.RUNS))
    if folder.finished:
        return folder

    device = torch.device(device or default_device())
    state = accelerate.PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
    if state.num_processes > 1:  # else the state may be of an earlier call, on another device
        device = state.device
    if state.is_main_process:
        dataset = dataset or open_data(run.data, data_root)
        write_json(folder.path / "config.json", describe(run))
    lock = folder.path / f"{run.fingerprint}.lock"
    with locked(lock) if state.is_main_process else nullcontext():
        state.wait_for_everyone()
        if not folder.finished:  # by another command, which this one has waited for
            dataset = dataset or open_data(run.data, data_root)
            _train(folder, dataset, paths.cache(data_root), device, state, progress, resume, compile)
        if state.is_main_process:
            lock.unlink(missing_ok=True)  # whoever waits for it or comes later finds a finished run
    return folder


def _train(
    folder: RunFolder,
    dataset: Dataset,
    cache_directory: Path,
    device: torch.device,
    state: accelerate.PartialState,
    progress: bool,
    resume: bool,
    compile: bool,
) -> None:
    run, config = folder.config, folder.config.train
    resume = resume and folder.checkpoint.exists()
    state.wait_for_everyone()
    if state.is_main_process:
        write_json(folder.path / "environment.json", environment(device, state.num_processes, dataset.version))

    seed_everything(run.seed)
    model = starting_model(run, dataset, folder.path if state.is_main_process else None)
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(model, config)
    cache = ImageCache(dataset.train, run.model.image_size, cache_directory, progress=progress)
    identities = torch.tensor([record.identity for record in dataset.train])
    cameras = torch.tensor([record.camera for record in dataset.train])
    batches = IdentityBatches(
        identities.tolist(),
        config.identities,
        config.images,
        seed=run.seed,
        rank=state.process_index,
        world_size=state.num_processes,
    )
    augment = Augment(config.flip, config.padding, config.erasing)

    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")

    first, seconds = 1, 0.0
    if resume:
        saved = checkpoint.restore(folder.checkpoint, model, optimizer)
        first, seconds = saved["epoch"] + 1, saved["seconds"]
        scaler.load_state_dict(saved.get("scaler") or scaler.state_dict())
    if state.is_main_process:  # what a cut-off epoch logged is logged again
        write_lines(
            folder.path / "metrics.jsonl",
            [row for row in read_lines(folder.path / "metrics.jsonl") if row["epoch"] < first],
        )
    parallel = wrap(model, state, device, compile)

    bar = tqdm(
        range(first, config.epochs + 1),
        initial=first - 1,
        total=config.epochs,
        desc=f"train {run.fingerprint}",
        unit="epoch",
        disable=not (bars(progress) and state.is_main_process),
        leave=False,
    )
    with _says_what_is_kept(folder):
        for epoch in bar:
            started, losses = time.perf_counter(), []
            generator = torch.Generator().manual_seed(seed_everything(run.seed, epoch, state.process_index))
            rate = learning_rate(config, epoch)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            batches.set_epoch(epoch)
            model.train()
            for indices, images in prefetch(cache, batches, device):
                with autocast(device, config.precision):
                    output = parallel(augment(images, generator), cameras[indices].to(device, non_blocking=True))
                output = Output(
                    {name: gather(x, state.num_processes) for name, x in output.features.items()},
                    {name: gather(x, state.num_processes) for name, x in output.logits.items()},
                )
                labels = gather(identities[indices].to(device, non_blocking=True), state.num_processes)
                loss, terms = objective(output, labels, config)
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                losses.append(torch.stack([loss, *terms.values()]).detach())

            rows = []
            for step, values in enumerate(torch.stack(losses).tolist()):  # the first time that the host waits for a GPU
                values = dict(zip(("loss", *terms), values, strict=True))
                _check_finite(values, epoch, step, folder)
                rows.append({"kind": "step", "epoch": epoch, "step": step, "learning_rate": rate, **values})
            mean_loss = float(np.mean([row["loss"] for row in rows]))
            elapsed = time.perf_counter() - started
            rows.append(
                {
                    "kind": "epoch",
                    "epoch": epoch,
                    "loss": mean_loss,
                    "seconds": elapsed,
                    "images": len(batches) * config.identities * config.images,
                }
            )
            last = epoch == config.epochs
            if state.is_main_process and (last or epoch % config.evaluate_every == 0):
                rankings = evaluate(model, dataset, cache_directory=cache_directory, precision=config.precision)
                rows += [
                    {"kind": "evaluation", "epoch": epoch, "feature": name, **ranking.summary()}
                    for name, ranking in rankings.items()
                ]
                bar.set_postfix_str(f"loss {mean_loss:.2f}, mAP {rankings['all'].mAP:.1%}")
            seconds += elapsed
            if state.is_main_process:
                append_lines(folder.path / "metrics.jsonl", rows)
                progressed = {"epoch": epoch, "seconds": seconds, "scaler": scaler.state_dict()}
                checkpoint.save(folder.checkpoint, model, None if last else optimizer, **progressed)
            state.wait_for_everyone()
    if state.is_main_process:
        write_json(folder.path / "result.json", _result(folder, dataset, device, state, seconds))
    state.wait_for_everyone()


@contextmanager
def _says_what_is_kept(folder: RunFolder):
    """On an interruption or an error, where the run stands and how to go on."""
    try:
        yield
    except BaseException:
        kept = "its last finished epoch is kept" if folder.checkpoint.exists() else "no epoch was finished yet"
        print(
            f"Run {folder.config.fingerprint} stopped: {kept} in {folder.path}. The same call goes on from there.",
            file=sys.stderr,
        )
        raise


def _check_finite(values: dict[str, float], epoch: int, step: int, folder: RunFolder) -> None:
    wrong = [name for name, value in values.items() if not math.isfinite(value) and name != "loss"]
    if wrong:
        kept = f"; the checkpoint of epoch {epoch - 1} is kept in {folder.path}" if folder.checkpoint.exists() else ""
        raise FloatingPointError(
            f"{wrong[0]} is {values[wrong[0]]} at epoch {epoch}, step {step}{kept}; "
            "lower TrainConfig.learning_rate, or train in float32"
        )


def _result(
    folder: RunFolder, dataset: Dataset, device: torch.device, state: accelerate.PartialState, seconds: float
) -> dict:
    """`result.json`: the last epoch's evaluation, and what it was measured with."""
    run, used = folder.config, environment(device, state.num_processes)
    scores = [
        row
        for row in read_lines(folder.path / "metrics.jsonl")
        if row["kind"] == "evaluation" and row["epoch"] == run.train.epochs
    ]
    return {
        "fingerprint": run.fingerprint,
        "data": {"name": dataset.name, "version": dataset.version},
        "seed": run.seed,
        "epochs": run.train.epochs,
        "commit": used["commit"],
        "device": used["device"],
        "processes": state.num_processes,
        "seconds": round(seconds, 2),
        "features": {
            row["feature"]: {key: row[key] for key in row if key not in ("kind", "epoch", "feature")} for row in scores
        },
    }
