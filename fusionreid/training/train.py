"""Training (Sec. IV.B): one epoch, and the run around it, which resumes, evaluates and saves."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .. import paths
from ..config import TrainConfig
from ..data import Augment, Dataset, ImageCache, PKSampler, prefetch
from ..data.datasets import check_version, open_data
from ..devices import autocast, environment, one_thread
from ..evaluation.attention import attention_entropy
from ..evaluation.evaluate import evaluate
from ..evaluation.ranking import Labels, Ranking, valid_queries
from ..files import read_json, write_json, write_lines
from ..models import checkpoints
from ..models.fusionreid import FusionReID, Output, build_model
from ..models.pretrained import load_weights
from ..parallel import gather, share_buffers, start, wrap
from ..processes import bars
from .losses import PaperObjective
from .runs import RunConfig, RunFolder, with_versions
from .trained import take_weights

REMEDY = (
    "Another TrainConfig.learning_rate, or float32 in place of fp16, makes another run; "
    "this one would end the same way."
)


def seed_everything(seed: int, *streams: int) -> int:
    """Seeds torch and numpy from (seed, *streams). Returns the seed that they got."""
    mixed = int(np.random.SeedSequence((seed, *streams)).generate_state(1)[0])
    torch.manual_seed(mixed)
    np.random.seed(mixed)
    return mixed


def learning_rate(config: TrainConfig, epoch: int, factor: float = 1.0) -> float:
    """The learning rate of an epoch, counted from 1.

    The schedule "paper" (Sec. IV.B) grows linearly from `learning_rate_start` to `learning_rate` in
    `warmup_epochs`, and decays by a cosine over the epochs that are left. "released" is the curve
    of the released code: its cosine runs over all epochs, and joins the warm-up a little under the
    peak. `factor` is on the peak alone, not on the first and last rate.
    """
    low = config.learning_rate_start
    peak = factor * config.learning_rate
    end = config.learning_rate_end
    warmup = config.warmup_epochs
    if config.schedule == "paper":
        done = epoch - 1
        skipped = warmup
    else:
        done = epoch
        skipped = 0
    if done < warmup:
        return low + (peak - low) * done / warmup
    share = (done - skipped) / (config.epochs - skipped)  # of the cosine that is done
    return end + (peak - end) * 0.5 * (1 + math.cos(math.pi * share))


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW. Biases are a group whose peak rate has a factor of its own."""
    weights = []
    biases = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = biases if name.endswith("bias") else weights
            group.append(parameter)
    groups = [
        {"params": weights, "factor": 1.0},
        {"params": biases, "factor": config.bias_learning_rate},
    ]
    options = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw":
        # An identity is seen once in about a hundred steps. AdamW's usual second beta for
        # Transformers, 0.95, forgets it in twenty (benchmarks/stand_ins.csv).
        return torch.optim.AdamW(groups, betas=(config.momentum, 0.999), **options)
    return torch.optim.SGD(groups, momentum=config.momentum, **options)


def starting_model(run: RunConfig, num_classes: int, num_cameras: int) -> tuple[FusionReID, str]:
    """The model with its starting weights, and a report of what was loaded from files."""
    starts = {"cnn": run.cnn_start, "transformer": run.transformer_start}
    fetched = [branch for branch, weights in starts.items() if weights.source == "imagenet"]
    model = build_model(run.model, num_classes, num_cameras, pretrained=fetched)
    files = {}
    for branch, weights in starts.items():
        if weights.whole:
            return model, take_weights(model, weights.source)
        if weights.source not in ("random", "imagenet"):
            files[branch] = weights.source
    reports = load_weights(model, **files)
    return model, "\n".join(f"{branch}: {report}" for branch, report in reports.items())


def train_one_epoch(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    config: TrainConfig,
    epoch: int,
    objective: PaperObjective,
    processes: int = 1,
) -> list[dict]:
    """One pass over the batches: images (B, 3, H, W), identities (B,) and cameras (B,).

    All are on the model's device. Several processes have a share of each batch each; the loss and
    its mining see the batch of all. Returns a line of `metrics.jsonl` for each step, with the total
    loss and its terms. Raises FloatingPointError, naming the term and the step, if a loss is not
    finite. The losses are looked at when the epoch ends, as each look waits for a GPU.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, epoch, group["factor"])
    model.train()
    steps = []  # the losses of each step, on the device
    for images, identities, cameras in batches:
        with autocast(images.device, config.precision):
            output = model(images, cameras)
        features = {name: gather(x, processes) for name, x in output.features.items()}
        logits = {name: gather(x, processes) for name, x in output.logits.items()}
        terms = objective(Output(features, logits), gather(identities, processes))
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        steps.append(torch.stack([loss, *terms.values()]).detach())
    lines = []
    rate = learning_rate(config, epoch)
    for step, values in enumerate(torch.stack(steps).tolist()):
        losses = dict(zip(("loss", *terms), values, strict=True))
        wrong = [name for name, value in losses.items() if not math.isfinite(value)]
        if wrong:
            name = wrong[-1]  # a term, as the total loss stands first
            raise FloatingPointError(
                f"training diverged: {name} is {losses[name]} at epoch {epoch}, step {step}. "
                f"{REMEDY}"
            )
        line = {"kind": "step", "epoch": epoch, "learning_rate": rate, "step": step}
        lines.append(line | losses)
    return lines


def train(
    run: RunConfig,
    *,
    objective: PaperObjective | None = None,
    dataset: Dataset | None = None,
    data_root: str | Path | None = None,
    runs_root: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool | Callable[[RunFolder], None] = True,
    resume: bool = True,
    compile: bool = False,
) -> RunFolder:
    """Trains a configuration and evaluates it at its last epoch, or loads it if that was done.

    A run that was cut off continues after its last saved epoch, on a CPU to the same numbers. Under
    `accelerate launch` the loss and its mining see the whole batch of all processes. On a CPU each
    process has one thread, so that the numbers do not depend on how many cores there are.

    Args:
        objective: what the network is trained for. Default: the paper's (Sec. III.C).
        dataset: default: `run.data` under `data_root`.
        device: default: the GPU, if there is one.
        progress: a bar; or a function of the run's folder that is called after each epoch.
        resume: False begins an unfinished run anew.
        compile: `torch.compile` the model; worth it for long runs on a GPU.

    Raises:
        FloatingPointError: training diverged. The last checkpoint stays.
        FileNotFoundError, ValueError, OSError: data or checkpoints are missing or wrong, or the
            disk is full.
    """
    data_root = Path(data_root or paths.DATA)
    run = with_versions(run, data_root)
    if dataset is not None:
        check_version(dataset, run.data)
        if not run.data.version:  # its files do not lie under data_root
            run = replace(run, data=replace(run.data, version=dataset.version))
    config = run.train
    folder = RunFolder(run, runs_root or paths.RUNS)
    if folder.finished:
        return folder
    state, device = start(device)
    main = state.is_main_process
    processes = state.num_processes
    with state.main_process_first():  # it renders a missing set, the others then find it
        dataset = dataset or open_data(run.data, data_root)
    with folder.held(resume) if main else nullcontext(), one_thread(device):
        state.wait_for_everyone()
        if folder.finished:  # another command trained it while this one waited for the lock
            return folder
        # What cannot be trained or ranked is found now, and not after the first epoch.
        sampler = PKSampler(
            [record.identity for record in dataset.train],
            config.identities,
            config.images,
            seed=run.seed,
            rank=state.process_index,
            world_size=processes,
        )
        valid_queries(Labels.of(dataset.query), Labels.of(dataset.gallery))
        cache = paths.cache(data_root)
        size = run.model.image_size
        images = ImageCache(dataset.train, size, cache, interpolation="bicubic", progress=progress)
        for records in (dataset.query, dataset.gallery):
            ImageCache(records, size, cache, progress=progress)
        objective = objective or PaperObjective(dataset.num_identities, config)

        seed_everything(run.seed)
        num_cameras = 1 + max(record.camera for record in dataset.train)
        model, report = starting_model(run, objective.num_classes, num_cameras)
        model = model.to(device, memory_format=torch.channels_last)
        optimizer = make_optimizer(model, config)
        scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        done, seconds, lines = folder.restore(model, optimizer, scaler)
        used = environment(device, processes)
        if main:
            folder.write_config(used, report)

        labels = torch.tensor([(record.identity, record.camera) for record in dataset.train])
        augment = Augment(config.flip, config.padding, config.erasing)

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            """Augmented images, identities and cameras of this process's share of each batch."""
            seed = seed_everything(run.seed, epoch, state.process_index)
            generator = torch.Generator().manual_seed(seed)
            sampler.set_epoch(epoch)
            for indices, pixels in prefetch(images, sampler, device):
                identities, cameras = labels[indices].to(device, non_blocking=True).unbind(dim=1)
                yield augment(pixels, generator), identities, cameras

        def is_evaluated(epoch: int) -> bool:
            return epoch == config.epochs or epoch % config.evaluate_every == 0

        def evaluate_epoch(epoch: int) -> dict[str, Ranking]:
            """Ranks query and gallery, and logs what each feature reaches and each head does."""
            share_buffers(model, processes)
            rankings = evaluate(model, dataset, cache_directory=cache, processes=processes)
            for head in attention_entropy(model, dataset.query):
                lines.append({"kind": "attention", "epoch": epoch} | head)
            for feature, ranking in rankings.items():
                scores = {"kind": "evaluation", "epoch": epoch, "feature": feature}
                lines.append(scores | ranking.summary())
            if main:
                write_lines(folder.metrics_file, lines)
            return rankings

        due = 0.0  # when the next checkpoint is saved
        rankings = {}
        if done and is_evaluated(done):  # the run was cut off after this epoch's checkpoint
            rankings = evaluate_epoch(done)
        parallel_model = wrap(model, state, device, compile)
        bar = tqdm(
            range(done + 1, config.epochs + 1),
            desc=f"train {run.fingerprint}",
            total=config.epochs,
            initial=done,
            leave=False,
            disable=not (bars(progress) and main),
        )
        for epoch in bar:
            started = time.perf_counter()
            steps = train_one_epoch(
                parallel_model,
                batches(epoch),
                optimizer,
                scaler,
                config,
                epoch,
                objective,
                processes,
            )
            _check_weights(model, epoch)
            elapsed = time.perf_counter() - started
            seconds += elapsed
            loss = float(np.mean([step["loss"] for step in steps]))
            count = len(steps) * config.identities * config.images
            ended = {"kind": "epoch", "epoch": epoch, "loss": loss}
            lines += [*steps, ended | {"seconds": elapsed, "images": count}]
            began = time.monotonic()
            # Saved before it is ranked, so that an error there loses no epoch.
            if main:
                write_lines(folder.metrics_file, lines)
            if main and (is_evaluated(epoch) or began >= due):
                checkpoints.save(
                    folder.checkpoint,
                    model,
                    optimizer if epoch < config.epochs else None,
                    epoch=epoch,
                    seconds=seconds,
                    scaler=scaler.state_dict(),
                )
                # The paper's model and its momenta have 1.3 GB. Saving takes 5 % of the time.
                saved = time.monotonic()
                due = saved + 20 * (saved - began)
            if is_evaluated(epoch):
                rankings = evaluate_epoch(epoch)
            bar.set_postfix_str(f"loss {loss:.2f}, {count / elapsed:,.0f} images/s")
            if main and callable(progress):
                progress(folder)
            state.wait_for_everyone()
        if main:
            folder.write_result(rankings, dataset, seconds, used)
        state.wait_for_everyone()
    return folder


def without_cameras(
    folder: RunFolder, *, data_root: str | Path, device: str | torch.device | None
) -> dict[str, dict[str, float]]:
    """What each feature of a finished run reaches without the camera embedding.

    It is measured once, and kept in the run's folder. A model without cameras gives {}.
    """
    file = folder.without_cameras_file
    if file.is_file():
        return read_json(file)
    state, device = start(device)
    model = folder.model(device)
    if not model.num_cameras:
        return {}
    rankings = evaluate(
        model,
        open_data(folder.config.data, data_root),
        cache_directory=paths.cache(data_root),
        use_cameras=False,
        processes=state.num_processes,
    )
    scores = {feature: ranking.summary() for feature, ranking in rankings.items()}
    if state.is_main_process:
        write_json(file, scores)
    return scores


def _check_weights(model: nn.Module, epoch: int) -> None:
    """A step can break the weights after the last loss was computed, in fp16 for example."""
    for name, tensor in checkpoints.tensors(model).items():
        if not tensor.isfinite().all():
            raise FloatingPointError(
                f"training diverged: {name} is not finite after epoch {epoch}. {REMEDY}"
            )
