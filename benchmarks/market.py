"""FusionReID on a real set: checks the set, says what training will cost here, trains, and writes a report.

    python benchmarks/market.py --root /data --estimate                       # the paper's model: time and memory only
    python benchmarks/market.py --root /data --dataset msmt17 --experiments table2
    python benchmarks/market.py --root /data --profile demo                   # small networks, for two cores

Writes `runs/report-<profile>-<dataset>/`: report.md, its curves, and their numbers. No picture of a person is in it, so
that it can be sent. What has been trained before is loaded, and a training that was cut off goes on.
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
from fusionreid.processes import cores
from fusionreid.training.losses import PaperObjective
from fusionreid.training.runs import RunConfig, RunFolder
from fusionreid.training.train import make_optimizer, starting_model, train_one_epoch

STEPS, WARM_UP = 10, 2


def measure(run: RunConfig, dataset: Dataset, device: torch.device) -> dict[str, float]:
    """Seconds of a training and of an evaluation of this run, from ten steps and ten batches, and the memory in GB."""
    config, (height, width) = run.train, run.model.image_size
    model = starting_model(run, dataset.num_identities, dataset.num_cameras)[0].to(
        device, memory_format=torch.channels_last
    )
    optimizer = make_optimizer(model, config)
    objective = PaperObjective(dataset.num_identities, config)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    images = torch.randint(
        0, 256, (config.identities * config.images, 3, height, width), dtype=torch.uint8
    )
    images = normalise(images).to(device)
    identities = torch.arange(config.identities).repeat_interleave(config.images).to(device)
    batch = images, identities, torch.zeros_like(identities)

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

    step = seconds(
        lambda count: train_one_epoch(
            model, [batch] * count, optimizer, scaler, config, 1, objective
        ),
        STEPS,
    )
    embedded = seconds(embed, STEPS) / len(images)
    labels = [record.identity for record in dataset.train]
    steps = config.epochs * len(PKSampler(labels, config.identities, config.images))
    on_gpu = device.type == "cuda"
    memory = (
        torch.cuda.max_memory_allocated(device) if on_gpu else psutil.Process().memory_info().rss
    )
    evaluation = embedded * (len(dataset.query) + len(dataset.gallery))
    return {
        "training": steps * step,
        "evaluation": evaluation,
        "GB": memory / 1e9,
        "images/s": len(images) / step,
    }


def estimate(runs: dict[str, RunConfig], dataset: Dataset, device: torch.device) -> str:
    """What the runs will cost, by the full model's: the other rows are smaller, or little larger."""
    torch.set_num_threads(
        1 if device.type == "cpu" else torch.get_num_threads()
    )  # as the runs have
    found = measure(next(iter(runs.values())), dataset, device)
    at_once = min(len(runs), cores() if device.type == "cpu" else max(1, torch.cuda.device_count()))
    seconds = len(runs) * (found["training"] + found["evaluation"]) / at_once
    return (
        f"Estimate from {STEPS} steps on {device_name(device)}: {found['images/s']:.0f} images/s in training, "
        f"{spoken(found['training'])} and {found['GB']:.1f} GB a run, evaluation {spoken(found['evaluation'])} and the "
        f"ranking; {len(runs)} runs to train, {at_once} at once: about {spoken(seconds)}."
    )


def spoken(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 3600 else f"{seconds / 60:.1f} minutes"


def as_markdown(frame: pd.DataFrame) -> str:
    head = [str(name) for name in (frame.index.name or "", *frame.columns)]
    rows = [
        [str(index), *("" if value != value else f"{value:.1f}" for value in row)]
        for index, row in zip(frame.index, frame.to_numpy(), strict=True)
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def carried(name: str, real: Setting) -> pd.DataFrame:
    """The rows' mAP less the base row's, on this set and on the synthetic people of the same profile, in points."""
    people = setting(real.profile, "synthetic", real.seeds)
    columns = {}
    for title, where in (("here", real), ("synthetic", people)):
        rows = compare.results(name, where).shown(name, ["all"])
        rows = rows[rows["metric"] == "mAP"].set_index("variant")
        columns[title] = (
            rows["ours_less"]
            if title == "here"
            else rows["recorded_less"].fillna(rows["ours_less"])
        )
        columns["paper"] = rows["paper_less"]
    return (
        pd.DataFrame(columns)[["paper", "here", "synthetic"]]
        .dropna(how="all")
        .rename_axis(f"{name}, mAP less base")
    )


def report(
    names: list[str], chosen: Setting, dataset: Dataset, root: Path, folder: Path, before: str
) -> Path:
    """Writes the report of what is trained; a run that is missing is a gap in its tables."""
    scale = chosen.profile
    parts = [
        f"# FusionReID on {DATASETS[dataset.name]}, profile {scale.name}",
        str(dataset),
        before,
    ]
    full = RunFolder(chosen.run(PAPER, chosen.seeds[0]), chosen.runs_root)
    if full.finished:
        retrieval = retrieve(
            full.model(default_device()), dataset, cache_directory=paths.cache(root)
        )
        found = {
            "as trained": retrieval.rank(),
            "k-reciprocal re-ranking": retrieval.rank(rerank=True),
        }
        plots.save(
            plots.cmc_curves({name: each.cmc for name, each in found.items()}), "cmc", folder=folder
        )
        rows = 100 * pd.DataFrame({name: each.summary() for name, each in found.items()}).T
        parts += ["## The full model", as_markdown(rows.rename_axis("percent")), "![CMC](cmc.png)"]
        parts += [
            ", ".join(f"{key} {value}" for key, value in environment(default_device()).items())
        ]
    measured = compare.results(names, chosen)
    for name in names:
        parts += [f"## {name}", tables.comparison(measured, name).markdown()]
        dots = plots.differences(
            measured.dots(name), titles=measured.titles(name), label="less the base row"
        )
        plots.save(dots, name, folder=folder)
        parts.append(f"![{name}]({name}.png)")
        if scale.backbones:
            parts += [
                "Do the orders of synthetic people carry over?",
                as_markdown(carried(name, chosen)),
            ]
    judged = claims.judge(measured)
    signs = judged[judged["sign"] != "not run"]
    kept = f"{(signs['sign'] == 'yes').sum()} of {len(signs)}"
    parts.append(
        f"Of the paper's differences that were run, {kept} have its sign. Without intervals none is decided."
    )
    write_text(folder / "report.md", "\n\n".join(filter(None, parts)) + "\n")
    return folder / "report.md"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--root", type=Path, default=paths.DATA, help="the folder that holds the set"
    )
    parser.add_argument(
        "--dataset",
        choices=[name for name in DATASETS if name != "synthetic"],
        default="market1501",
    )
    parser.add_argument("--profile", choices=list(PROFILES), default="paper")
    size_help = "demo is a draw of 200 and 150 people, full the whole (default: the profile's)"
    parser.add_argument("--size", choices=["demo", "full"], help=size_help)
    parser.add_argument("--data-seed", type=int, default=0, help="of the draw")
    parser.add_argument("--experiments", nargs="+", choices=EXPERIMENTS, default=["table2"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs-root", type=Path, default=paths.RUNS)
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="train nothing: check the set, and say what it costs",
    )
    given = parser.parse_args(arguments)
    try:
        whole = open_dataset(given.dataset, given.root)
        print(f"{whole}\n\n{table(whole)}\n\n{verdict(whole)}\n")
        scale = profile(given.profile)
        data = DataConfig(given.dataset, given.size or scale.data.size, given.data_seed)
        chosen = setting(scale, data, given.seeds, given.runs_root, given.root)
        dataset = open_data(chosen.data, given.root)
        runs = plan(given.experiments, chosen)
        runs = {
            name: run for name, run in runs.items() if not RunFolder(run, given.runs_root).finished
        }
        full = chosen.run(PAPER, given.seeds[0])
        runs = dict(
            sorted(runs.items(), key=lambda item: item[1] != full)
        )  # the full model first: it is measured
        before = (
            estimate(runs, dataset, default_device()) if runs else "Everything was trained before."
        )
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
    except (OSError, ValueError) as error:  # a set, weights or a disk that is missing or wrong
        print(f"market: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
