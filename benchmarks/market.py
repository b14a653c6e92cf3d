"""FusionReID on a real set: checks it, says what training costs here, trains, writes a report.

    python benchmarks/market.py --root /data --estimate        # the cost of the paper's model only
    python benchmarks/market.py --root /data --dataset msmt17 --experiments table2
    python benchmarks/market.py --root /data --profile demo    # small networks, for two cores

Writes `runs/report-<profile>-<dataset>/`: report.md, its curves, and their numbers. No picture of a
person is in it, so that it can be sent. What has been trained before is loaded, and a training that
was cut off goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import torch

from fusionreid import paths, plots
from fusionreid.config import DATASETS, PAPER, PROFILES, DataConfig, profile
from fusionreid.data import PKSampler, normalise
from fusionreid.data.datasets import Dataset, open_data, open_dataset, table, verdict
from fusionreid.devices import default_device, device_name, environment
from fusionreid.evaluation.evaluate import retrieve
from fusionreid.files import write_text
from fusionreid.jobs import RunsError, run_all
from fusionreid.paper import claims, compare, tables
from fusionreid.paper.experiments import EXPERIMENTS, Setting, plan, setting
from fusionreid.processes import cores, pool
from fusionreid.training.losses import PaperObjective
from fusionreid.training.runs import RunConfig, RunFolder
from fusionreid.training.train import make_optimizer, starting_model, train_one_epoch

STEPS = 10
WARM_UP = 2


def measure(run: RunConfig, dataset: Dataset, device: torch.device) -> dict[str, float]:
    """Seconds of this run's training and evaluation, from ten steps and batches; memory in GB."""
    config = run.train
    model, _ = starting_model(run, dataset.num_identities, dataset.num_cameras)
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(model, config)
    objective = PaperObjective(dataset.num_identities, config)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    shape = (config.identities * config.images, 3, *run.model.image_size)
    images = normalise(torch.randint(0, 256, shape, dtype=torch.uint8)).to(device)
    identities = torch.arange(config.identities).repeat_interleave(config.images).to(device)
    batch = images, identities, torch.zeros_like(identities)

    def train(steps: int) -> None:
        train_one_epoch(model, [batch] * steps, optimizer, scaler, config, 1, objective)

    def embed(batches: int) -> None:
        with torch.inference_mode():
            for _ in range(batches):
                model.embed(images, batch[2])

    def seconds(work, count: int) -> float:
        work(WARM_UP)
        started = time.perf_counter()
        work(count)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - started) / count

    step = seconds(train, STEPS)
    embedded = seconds(embed, STEPS) / len(images)
    labels = [record.identity for record in dataset.train]
    steps = config.epochs * len(PKSampler(labels, config.identities, config.images))
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device)
    else:
        memory = psutil.Process().memory_info().rss
    evaluation = embedded * (len(dataset.query) + len(dataset.gallery))
    return {
        "training": steps * step,
        "evaluation": evaluation,
        "GB": memory / 1e9,
        "images/s": len(images) / step,
    }


def estimate(runs: list[RunConfig], dataset: Dataset, device: torch.device) -> str:
    """What the runs will cost, by the first's, the full model's: the others are little larger."""
    if device.type == "cpu":
        places = cores()
    else:
        places = max(1, torch.cuda.device_count())
    # In a process with one thread, as the runs have. What it holds of a GPU ends with it.
    with pool(1) as executor:
        cost = executor.submit(measure, runs[0], dataset, device).result()
        name = executor.submit(device_name, device).result()
    at_once = min(len(runs), places)
    seconds = len(runs) * (cost["training"] + cost["evaluation"]) / at_once
    return (
        f"Estimate from {STEPS} steps on {name}: {cost['images/s']:.0f} images/s in "
        f"training, {spoken(cost['training'])} and {cost['GB']:.1f} GB a run, evaluation "
        f"{spoken(cost['evaluation'])} and the ranking; {len(runs)} runs to train, {at_once} at "
        f"once: about {spoken(seconds)}."
    )


def spoken(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 3600 else f"{seconds / 60:.1f} minutes"


def as_markdown(frame: pd.DataFrame) -> str:
    """A frame with its index as a table; NaN is an empty cell."""
    rows = [[frame.index.name or "", *map(str, frame.columns)], ["---"] * (1 + len(frame.columns))]
    for index, values in zip(frame.index, frame.to_numpy(), strict=True):
        cells = [value if isinstance(value, str) else f"{value:.1f}" for value in values]
        rows.append([str(index), *(cell.replace("nan", "") for cell in cells)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def full_model(folder: RunFolder, dataset: Dataset, root: Path, report_folder: Path) -> list[str]:
    """The report's part on the full model, with and without re-ranking; draws its curves."""
    device = default_device()
    retrieval = retrieve(folder.model(device), dataset, cache_directory=paths.cache(root))
    rankings = {
        "as trained": retrieval.rank(device=device),
        "k-reciprocal re-ranking": retrieval.rank(rerank=True, device=device),
    }
    curves = plots.cmc_curves({name: ranking.cmc for name, ranking in rankings.items()})
    plots.save(curves, "cmc", folder=report_folder)
    rows = pd.DataFrame({name: ranking.summary() for name, ranking in rankings.items()}).T
    return [
        "## The full model",
        as_markdown((100 * rows).rename_axis("percent")),
        "![CMC](cmc.png)",
        ", ".join(f"{key} {value}" for key, value in environment(device).items()),
    ]


def report(
    names: list[str], chosen: Setting, dataset: Dataset, root: Path, folder: Path, before: str
) -> Path:
    """Writes the report of what is trained; a run that is missing is a gap in its tables."""
    scale = chosen.profile
    title = f"# FusionReID on {DATASETS[dataset.name]}, profile {scale.name}"
    parts = [title, str(dataset), before]
    full = RunFolder(chosen.run(PAPER, chosen.seeds[0]), chosen.runs_root)
    if full.finished:
        parts += full_model(full, dataset, root, folder)
    measured = compare.results(names, chosen)
    for name in names:
        parts += [f"## {name}", tables.comparison(measured, name).markdown()]
        dots = plots.differences(
            measured.dots(name), titles=measured.titles, label="minus the base row"
        )
        plots.save(dots, name, folder=folder)
        parts.append(f"![{name}]({name}.png)")
    judged = claims.judge(measured)
    signs = judged.loc[judged["source"] == "own", "verdict"]
    signs = signs[signs != "not run"]
    kept = f"{(signs == 'yes').sum()} of {len(signs)} of your own runs have its sign"
    parts.append(f"Of the paper's differences, {kept}. One run decides none of them.")
    write_text(folder / "report.md", "\n\n".join(part for part in parts if part) + "\n")
    return folder / "report.md"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    root_help = "the folder that holds the set"
    parser.add_argument("--root", type=Path, default=paths.DATA, help=root_help)
    real = [name for name in DATASETS if name != "synthetic"]
    parser.add_argument("--dataset", choices=real, default="market1501")
    parser.add_argument("--profile", choices=list(PROFILES), default="paper")
    size_help = "demo is a draw of 200 and 150 people, full the whole (default: the profile's)"
    parser.add_argument("--size", choices=["demo", "full"], help=size_help)
    parser.add_argument("--data-seed", type=int, default=0, help="of the draw")
    parser.add_argument("--experiments", nargs="+", choices=EXPERIMENTS, default=["table2"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs-root", type=Path, default=paths.RUNS)
    estimate_help = "train nothing: check the set, and say what it costs"
    parser.add_argument("--estimate", action="store_true", help=estimate_help)
    given = parser.parse_args(arguments)
    try:
        return run(given)
    except (OSError, ValueError) as error:  # a set, weights or a disk that is missing or wrong
        print(f"market: {error}", file=sys.stderr)
        return 2


def run(given: argparse.Namespace) -> int:
    whole = open_dataset(given.dataset, given.root)
    print(f"{whole}\n\n{table(whole)}\n\n{verdict(whole)}\n")
    scale = profile(given.profile)
    data = DataConfig(given.dataset, given.size or scale.data.size, given.data_seed)
    chosen = setting(scale, data, given.seeds, given.runs_root, given.root)
    dataset = open_data(chosen.data, given.root)
    missing = []
    for run in plan(given.experiments, chosen).values():
        if not RunFolder(run, given.runs_root).finished:
            missing.append(run)
    full = chosen.run(PAPER, given.seeds[0])
    missing.sort(key=lambda run: run != full)  # the full model first: it is measured
    before = "Everything was trained before."
    if missing:
        before = estimate(missing, dataset, default_device())
    print(before, flush=True)
    if given.estimate:
        return 0
    code = 0
    try:
        run_all(given.experiments, chosen)
    except RunsError as error:  # the others are done, and reported
        code = 1
        print(f"market: {error}", file=sys.stderr)
    before = f"```\n{table(whole)}\n```\n\n{verdict(whole)}\n\n{before}"
    draw = f"-{data.seed}" if data.size == "demo" else ""
    folder = given.runs_root / f"report-{given.profile}-{given.dataset}{draw}"
    print(f"report: {report(given.experiments, chosen, dataset, given.root, folder, before)}")
    return code


if __name__ == "__main__":
    sys.exit(main())
