"""Training (Sec. IV.B): one epoch, and the run around it that resumes, evaluates and saves."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import accelerate
import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .. import paths
from ..config import TrainConfig
from ..data import Augment, Dataset, ImageCache, PKSampler, prefetch
from ..data.datasets import open_data
from ..devices import autocast, default_device
from ..files import locked, read_lines, write_json, write_text
from ..models.fusionreid import FusionReID, Output, build_model
from ..models.pretrained import load_weights
from ..processes import bars
from . import checkpoint
from .losses import objective
from .parallel import gather, wrap
from .runs import RunConfig, RunFolder, append_lines, environment, save_precision, write_lines

# How long processes wait for the first one, which alone renders, decodes and evaluates.
PATIENCE = timedelta(hours=6)


def seed_everything(seed: int, *streams: int) -> int:
    """Seeds torch and numpy from (seed, *streams); returns the seed that they got."""
    mixed = int(np.random.SeedSequence((seed, *streams)).generate_state(1, np.uint32)[0])
    torch.manual_seed(mixed)
    np.random.seed(mixed)
    return mixed


def learning_rate(config: TrainConfig, epoch: int, factor: float = 1.0) -> float:
    """The learning rate of an epoch, counted from 1.

    "paper" (Sec. IV.B): from `learning_rate_start`, linearly to `learning_rate` in `warmup_epochs`, then a cosine
    over the epochs that are left. "released": the released code's curve, whose cosine runs over all epochs, so that
    it joins the warm-up a little under the peak.

    Args:
        factor: on the peak, but not on the first and the last rate.
    """
    low, peak, end = config.learning_rate_start, factor * config.learning_rate, config.learning_rate_end
    warmup = config.warmup_epochs
    done = epoch - 1 if config.schedule == "paper" else epoch
    if done < warmup:
        return low + (peak - low) * done / warmup
    skipped = warmup if config.schedule == "paper" else 0
    return end + (peak - end) * 0.5 * (1 + math.cos(math.pi * (done - skipped) / (config.epochs - skipped)))


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW; biases in a group of their own, whose rate peaks at `bias_learning_rate` times."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for name, p in trained if not name.endswith("bias")], "factor": 1.0},
        {"params": [p for name, p in trained if name.endswith("bias")], "factor": config.bias_learning_rate},
    ]
    if config.optimizer == "adamw":
        betas = (config.momentum, 0.95)  # 0.999 diverges now and then in so few steps
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, weight_decay=config.weight_decay)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay)


def starting_model(run: RunConfig, dataset: Dataset) -> tuple[FusionReID, str]:
    """The model with the weights that training starts from, and a report of what was loaded from files."""
    sources = {"cnn": run.cnn_start.source, "transformer": run.transformer_start.source}
    fetched = [name for name, source in sources.items() if source == "imagenet"]
    files = {name: source for name, source in sources.items() if source not in ("random", "imagenet")}
    model = build_model(run.model, dataset.num_identities, dataset.num_cameras, pretrained=fetched)
    reports = load_weights(model, **files)
    return model, "\n".join(f"{name}: {report}" for name, report in reports.items())


class Feed:
    """The batches of one process: augmented images, identities and cameras, all on the device."""

    def __init__(self, run: RunConfig, dataset: Dataset, cache: ImageCache, state: accelerate.PartialState, device):
        config = run.train
        self.run, self.cache, self.device, self.rank = run, cache, device, state.process_index
        self.identities = torch.tensor([record.identity for record in dataset.train])
        self.cameras = torch.tensor([record.camera for record in dataset.train])
        self.augment = Augment(config.flip, config.padding, config.erasing)
        self.sampler = PKSampler(
            self.identities.tolist(),
            config.identities,
            config.images,
            seed=run.seed,
            rank=state.process_index,
            world_size=state.num_processes,
        )

    def epoch(self, epoch: int):
        """Yields (images, identities, cameras); everything random depends on (seed, epoch, process) alone."""
        generator = torch.Generator().manual_seed(seed_everything(self.run.seed, epoch, self.rank))
        self.sampler.set_epoch(epoch)
        for indices, images in prefetch(self.cache, self.sampler, self.device):
            labels = (part[indices].to(self.device, non_blocking=True) for part in (self.identities, self.cameras))
            yield self.augment(images, generator), *labels


def train_one_epoch(
    model: nn.Module,
    batches,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    config: TrainConfig,
    processes: int = 1,
) -> list[dict[str, float]]:
    """One pass over `batches` of (images, identities, cameras); returns the loss and its terms, a row a step.

    With several processes the loss and its mining see the batch of all of them.

    Raises:
        FloatingPointError: naming the term and the step, if a loss is not finite.
    """
    model.train()
    losses: list[Tensor] = []
    for images, identities, cameras in batches:
        with autocast(images.device, config.precision):
            output = model(images, cameras)
        features, logits = ({name: gather(x, processes) for name, x in part.items()} for part in output)
        loss, terms = objective(Output(features, logits), gather(identities, processes), config)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(torch.stack([loss, *terms.values()]).detach())
    names = ("loss", *terms)
    rows = [
        dict(zip(names, values, strict=True)) for values in torch.stack(losses).tolist()
    ]  # a GPU is waited for here
    for step, row in enumerate(rows):
        wrong = [name for name in terms if not math.isfinite(row[name])]
        if wrong:
            raise FloatingPointError(
                f"{wrong[0]} is {row[wrong[0]]} at step {step}; lower TrainConfig.learning_rate, or train in float32"
            )
    return rows


def train(
    run: RunConfig,
    evaluate: Callable,
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

    A run that was cut off goes on after its last finished epoch, to the same numbers. Under `accelerate launch` the
    loss and its mining see the whole batch of all processes.

    Args:
        evaluate: called with (model, dataset, cache_directory=...), returns a `Ranking` by feature:
            `fusionreid.evaluation.evaluate.evaluate`.
        dataset: the data, if it is open already; default: `run.data` under `data_root`.
        device: default: the GPU, if there is one.
        resume: False starts anew, over what an unfinished run left.
        compile: `torch.compile` the model; worth it for long runs on a GPU.

    Raises:
        FloatingPointError: if a loss is not finite; the last checkpoint stays.
        FileNotFoundError, ValueError, OSError: for data or checkpoints that are missing or wrong, and full disks.
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
        write_json(folder.path / "config.json", {"fingerprint": run.fingerprint, **run.describe()})
    lock = folder.path / f"{run.fingerprint}.lock"
    with locked(lock) if state.is_main_process else nullcontext():
        state.wait_for_everyone()
        if not folder.finished:  # by another command, which this one has waited for
            dataset = dataset or open_data(run.data, data_root)
            cache = paths.cache(data_root)
            images = ImageCache(dataset.train, run.model.image_size, cache, interpolation="bicubic", progress=progress)
            feed = Feed(run, dataset, images, state, device)
            with _says_what_is_kept(folder):
                _train(folder, feed, lambda model: evaluate(model, dataset, cache_directory=cache), state,
                       dataset=dataset, progress=progress, resume=resume, compile=compile)  # fmt: skip
        if state.is_main_process:
            lock.unlink(missing_ok=True)  # whoever waits for it or comes later finds a finished run
    return folder


def _train(folder: RunFolder, feed: Feed, evaluate: Callable, state, *, dataset, progress, resume, compile) -> None:
    run, config, device, main = folder.config, folder.config.train, feed.device, state.is_main_process
    seed_everything(run.seed)
    model, report = starting_model(run, dataset)
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(model, config)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    first, seconds = 1, 0.0
    if resume and folder.checkpoint.exists():
        saved = checkpoint.restore(folder.checkpoint, model)
        first, seconds = saved["epoch"] + 1, saved["seconds"]
        if first <= config.epochs:  # the last checkpoint is of the model alone
            checkpoint.restore_optimizer(folder.checkpoint, model, optimizer)
        scaler.load_state_dict(saved["scaler"])
    used = environment(device, state.num_processes)
    if main:
        folder.remove_leftovers()
        write_json(folder.path / "environment.json", used)
        # An epoch that was cut off is done again, and logged again.
        write_lines(folder.metrics_file, [row for row in read_lines(folder.metrics_file) if row["epoch"] < first])
        if report:
            print(report)
            write_text(folder.path / "weights.txt", f"{report}\n")
    state.wait_for_everyone()
    parallel = wrap(model, state, device, compile)

    epochs, hidden = range(first, config.epochs + 1), not (bars(progress) and main)
    bar = tqdm(epochs, f"train {run.fingerprint}", config.epochs, initial=first - 1, leave=False, disable=hidden)
    for epoch in bar:
        started = time.perf_counter()
        rate = learning_rate(config, epoch)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, epoch, group["factor"])
        try:
            steps = train_one_epoch(parallel, feed.epoch(epoch), optimizer, scaler, config, state.num_processes)
        except FloatingPointError as error:
            raise FloatingPointError(f"epoch {epoch}: {error}") from None
        elapsed = time.perf_counter() - started
        seconds += elapsed
        loss = float(np.mean([row["loss"] for row in steps]))
        rows = [
            {"kind": "step", "epoch": epoch, "step": i, "learning_rate": rate, **row} for i, row in enumerate(steps)
        ]
        images = len(steps) * config.identities * config.images
        rows.append({"kind": "epoch", "epoch": epoch, "loss": loss, "seconds": elapsed, "images": images})
        last = epoch == config.epochs
        if main and (last or epoch % config.evaluate_every == 0):
            rankings = evaluate(model)
            scores = {name: ranking.summary() for name, ranking in rankings.items()}
            rows += [{"kind": "evaluation", "epoch": epoch, "feature": name, **score} for name, score in scores.items()]
            bar.set_postfix_str(f"loss {loss:.2f}, mAP {scores['all']['mAP']:.1%}")
        if main:
            append_lines(folder.metrics_file, rows)
            if last:
                save_precision(folder.path / "average_precision.npz", rankings)
            progressed = {"epoch": epoch, "seconds": seconds, "scaler": scaler.state_dict()}
            checkpoint.save(folder.checkpoint, model, None if last else optimizer, **progressed)
        state.wait_for_everyone()
    if main:
        data = {"name": dataset.name, "version": dataset.version}
        folder.write_result(data=data, seconds=round(seconds, 2), **used)
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
