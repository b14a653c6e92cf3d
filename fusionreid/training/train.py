"""Training (Sec. IV.B): one epoch, and the run around it, which resumes, evaluates and saves."""

import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .. import paths
from ..config import TrainConfig
from ..data import Augment, Dataset, ImageCache, PKSampler, prefetch, truth
from ..data.datasets import open_data
from ..devices import autocast, environment, one_thread
from ..files import write_lines
from ..models import checkpoints
from ..models.fusionreid import FusionReID, Output, build_model
from ..models.pretrained import load_weights
from ..parallel import gather, share_buffers, start, wrap
from ..processes import bars
from .losses import objective
from .runs import RunConfig, RunFolder


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
    it joins the warm-up a little under the peak. `factor` is on the peak alone, not on the first and last rate.
    """
    low, peak, end = (
        config.learning_rate_start,
        factor * config.learning_rate,
        config.learning_rate_end,
    )
    warmup = config.warmup_epochs
    done = epoch - 1 if config.schedule == "paper" else epoch
    if done < warmup:
        return low + (peak - low) * done / warmup
    skipped = warmup if config.schedule == "paper" else 0
    return end + (peak - end) * 0.5 * (
        1 + math.cos(math.pi * (done - skipped) / (config.epochs - skipped))
    )


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW; biases are a group with a factor of their own (see `learning_rate`)."""
    trained = [
        (name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad
    ]
    groups = [
        {"params": [p for name, p in trained if not name.endswith("bias")], "factor": 1.0},
        {
            "params": [p for name, p in trained if name.endswith("bias")],
            "factor": config.bias_learning_rate,
        },
    ]
    options = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw":
        # With 0.95, an identity that is seen once in a hundred steps is forgotten in twenty (benchmarks/stand_ins.csv).
        return torch.optim.AdamW(groups, betas=(config.momentum, 0.999), **options)
    return torch.optim.SGD(groups, momentum=config.momentum, **options)


def starting_model(
    run: RunConfig, dataset: Dataset, classes: int | None = None
) -> tuple[FusionReID, str]:
    """The model, of so many classes (default: the identities), with its starting weights, and a report of files."""
    sources = {"cnn": run.cnn_start.source, "transformer": run.transformer_start.source}
    fetched = [name for name, source in sources.items() if source == "imagenet"]
    files = {
        name: source for name, source in sources.items() if source not in ("random", "imagenet")
    }
    model = build_model(
        run.model, classes or dataset.num_identities, dataset.num_cameras, pretrained=fetched
    )
    return model, "\n".join(
        f"{name}: {report}" for name, report in load_weights(model, **files).items()
    )


def train_one_epoch(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    config: TrainConfig,
    epoch: int,
    processes: int = 1,
    looks: Tensor | None = None,
) -> list[dict]:
    """One pass over the batches: images (B, 3, H, W), identities (B,) and cameras (B,), on the model's device.

    Several processes have a share of each batch each; the loss and its mining see the batch of all. `looks` is as of
    `objective`. Returns a line of `metrics.jsonl` for each step, with the loss and its terms. Raises
    FloatingPointError, naming the term and the step, if a loss is not finite.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, epoch, group["factor"])
    model.train()
    losses = []
    for images, identities, cameras in batches:
        with autocast(images.device, config.precision):
            output = model(images, cameras)
        features, logits = (
            {name: gather(x, processes) for name, x in part.items()} for part in output
        )
        loss, terms = objective(
            Output(features, logits), gather(identities, processes), config, looks
        )
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(torch.stack([loss, *terms.values()]).detach())

    lines, common = (
        [],
        {"kind": "step", "epoch": epoch, "learning_rate": learning_rate(config, epoch)},
    )
    for step, values in enumerate(
        torch.stack(losses).tolist()
    ):  # the first time that the host waits for a GPU
        lines.append({**common, "step": step, **dict(zip(("loss", *terms), values, strict=True))})
        if wrong := [name for name in terms if not math.isfinite(lines[-1][name])]:
            found = f"{wrong[0]} is {lines[-1][wrong[0]]} at epoch {epoch}, step {step}"
            raise FloatingPointError(
                f"{found}; lower TrainConfig.learning_rate, or train in float32"
            )
    return lines


def train(
    run: RunConfig,
    evaluate: Callable,
    *,
    dataset: Dataset | None = None,
    data_root: str | Path | None = None,
    runs_root: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool | Callable[[RunFolder], None] = True,
    resume: bool = True,
    compile: bool = False,
) -> RunFolder:
    """Trains a configuration and evaluates it at its last epoch, or loads it if that was done before.

    A run that was cut off continues after its last finished epoch, to the same numbers; `resume=False` begins it anew.
    Under `accelerate launch` the loss and its mining see the whole batch of all processes. On a CPU each process
    has one thread, so that the numbers do not depend on how many cores there are.

    Args:
        evaluate: `fusionreid.evaluation.evaluate.evaluate`.
        dataset, device: default: `run.data` under `data_root`, and the GPU, if there is one.
        progress: a bar; or what is called with the run's folder after each epoch, to draw its `metrics`, say.
        compile: `torch.compile` the model; worth it for long runs on a GPU.

    Raises FloatingPointError if a loss is not finite, where the last checkpoint stays; FileNotFoundError, ValueError or
    OSError for data or checkpoints that are missing or wrong, and full disks.
    """
    data_root, config = Path(data_root or paths.DATA), run.train
    folder = RunFolder(run, Path(runs_root or paths.RUNS))
    if folder.finished:
        return folder
    state, device = start(device)
    main, processes = state.is_main_process, state.num_processes
    dataset = dataset or (open_data(run.data, data_root) if main else None)
    with folder.held(resume) if main else nullcontext(), one_thread(device):
        state.wait_for_everyone()
        if folder.finished:  # by another command, for which this one has waited
            return folder
        dataset, cache = dataset or open_data(run.data, data_root), paths.cache(data_root)
        seed_everything(run.seed)
        looks = (
            torch.tensor(truth.looks(dataset), device=device)
            if config.task == "attributes"
            else None
        )
        classes = None if looks is None else int((looks.amax(dim=0) + 1).sum())
        model, report = starting_model(run, dataset, classes)
        model = model.to(device, memory_format=torch.channels_last)
        optimizer = make_optimizer(model, config)
        scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        epoch, seconds, lines = folder.restore(model, optimizer, scaler)
        used = environment(device, processes)
        if main:
            folder.describe(used, report)

        images = ImageCache(
            dataset.train, run.model.image_size, cache, interpolation="bicubic", progress=progress
        )
        labels = torch.tensor([(record.identity, record.camera) for record in dataset.train])
        share = {"seed": run.seed, "rank": state.process_index, "world_size": processes}
        sampler = PKSampler(labels[:, 0].tolist(), config.identities, config.images, **share)
        augment = Augment(config.flip, config.padding, config.erasing)

        def batches(epoch: int):
            generator = torch.Generator().manual_seed(
                seed_everything(run.seed, epoch, state.process_index)
            )
            sampler.set_epoch(epoch)
            for indices, pixels in prefetch(images, sampler, device):
                yield (
                    augment(pixels, generator),
                    *labels[indices].to(device, non_blocking=True).unbind(dim=1),
                )

        def ranked() -> dict:
            share_buffers(model, processes)
            return evaluate(model, dataset, cache_directory=cache, processes=processes)

        parallel, hidden = wrap(model, state, device, compile), not (bars(progress) and main)
        epochs = range(epoch + 1, config.epochs + 1)
        bar = tqdm(
            epochs,
            f"train {run.fingerprint}",
            config.epochs,
            leave=False,
            initial=epoch,
            disable=hidden,
        )
        for epoch in bar:
            started = time.perf_counter()
            steps = train_one_epoch(
                parallel, batches(epoch), optimizer, scaler, config, epoch, processes, looks
            )
            elapsed = time.perf_counter() - started
            seconds += elapsed
            last = epoch == config.epochs
            found = {} if last or epoch % config.evaluate_every else ranked()
            if main:
                loss, count = (
                    np.mean([step["loss"] for step in steps]),
                    len(steps) * config.identities * config.images,
                )
                ended = {
                    "kind": "epoch",
                    "epoch": epoch,
                    "loss": float(loss),
                    "seconds": elapsed,
                    "images": count,
                }
                lines += [*steps, ended, *scores(found, epoch)]
                write_lines(folder.metrics_file, lines)
                progressed = {"epoch": epoch, "seconds": seconds, "scaler": scaler.state_dict()}
                checkpoints.save(
                    folder.checkpoint, model, None if last else optimizer, **progressed
                )
                bar.set_postfix_str(f"loss {loss:.2f}")
                if callable(progress):
                    progress(folder)
            state.wait_for_everyone()
        rankings = ranked()
        if main:
            write_lines(folder.metrics_file, lines + scores(rankings, epoch))
            folder.write_result(rankings, dataset, seconds, used)
        state.wait_for_everyone()
    return folder


def scores(rankings: dict, epoch: int) -> list[dict]:
    """Lines of `metrics.jsonl`: what each feature reached."""
    found = {feature: ranking.summary() for feature, ranking in rankings.items()}
    return [
        {"kind": "evaluation", "epoch": epoch, "feature": feature, **score}
        for feature, score in found.items()
    ]
