"""What synthetic people teach for real ones, and what they give a training on real people.

    python benchmarks/transfer.py --market /data
    python benchmarks/transfer.py --market /data --only curve

Trains the missing runs of the single branches and the full model (Table II, demo profile), and
writes tables to benchmarks/results/. Only numbers of real people are written.

- transfer.csv: networks trained on synthetic people alone, tried on draws of 150 people of
  Market-1501 and on the whole set, without training there. `--data-seeds` are the synthetic sets.
- curve.csv: the same of the full model, by the number of synthetic people. They are rendered, 2,400
  of them with six images each, in 15 minutes of one core.
- starts.csv: networks trained on draws of Market-1501, from weights pre-trained on synthetic
  people, and from random weights.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd

from fusionreid import experiments, jobs, paths
from fusionreid.config import PROFILES, DataConfig
from fusionreid.data import Dataset, open_dataset
from fusionreid.data.datasets import open_data
from fusionreid.evaluation.evaluate import cross_domain
from fusionreid.training.runs import RunFolder

RESULTS = paths.ROOT / "benchmarks/results"
ROWS = ["ResNet50", "ViT-B/16*", "FusionReID*"]  # the demo's stand-ins of these


def finished(
    setting: experiments.Setting, rows: list[str] = ROWS
) -> list[tuple[str, int, RunFolder]]:
    """The name, the seed and the run of each row; trains those that are missing."""
    jobs.run_all("table2", setting, rows=rows)
    runs = []
    for variant in experiments.variants("table2"):
        if variant.name in rows:
            for seed in setting.seeds:
                run = setting.run(variant.config, seed)
                runs.append((variant.name, seed, RunFolder(run, setting.runs_root)))
    return runs


def real_people(market: Path, draws: list[int]) -> dict[str, Dataset]:
    """All of Market-1501, and draws of it."""
    sets = {"Market-1501": open_dataset("market1501", market)}
    for draw in draws:
        sets[f"draw {draw}"] = open_dataset("market1501", market, size="demo", seed=draw)
    return sets


def tried(real: dict[str, Dataset], data_seeds: list[int], seeds: list[int]) -> pd.DataFrame:
    """A row for each run and real set, with and without the cameras of training."""
    tables = []
    for data_seed in data_seeds:
        setting = experiments.setting("demo", DataConfig(size="demo", seed=data_seed), seeds)
        for row, seed, folder in finished(setting):
            data = "{name} {version}".format(**folder.result["data"])
            table = cross_domain(folder.model(), real, cache_directory=paths.cache())
            table.insert(0, "row", row)
            table.insert(1, "trained on", data)
            table.insert(2, "seed", seed)
            tables.append(table)
    return pd.concat(tables)


def write_part(dataset: Dataset, people: int, root: Path) -> str:
    """Writes a CSV file of a set that has only its first training people; returns its name."""
    rows = []
    for split in ("train", "query", "gallery"):
        for record in getattr(dataset, split):
            if split == "train" and record.identity >= people:
                continue
            # People of training are numbered from 0. The others must have other numbers.
            identity = record.identity + (0 if split == "train" else len(dataset.train))
            path = record.path.relative_to(root.resolve())
            rows.append((path, identity, record.camera, split))
    name = f"synthetic-{people}"
    table = pd.DataFrame(rows, columns=["path", "identity", "camera", "split"])
    table.to_csv(root / f"{name}.csv", index=False)
    return name


def curve(real: dict[str, Dataset], counts: list[int], seeds: list[int]) -> pd.DataFrame:
    """A row for each number of synthetic people, run of the full model, and real set."""
    rendered = open_data(DataConfig(size="pretrain", seed=0), paths.DATA)
    tables = []
    for people in counts:
        name = write_part(rendered, people, paths.DATA)
        setting = experiments.setting("demo", DataConfig(name=name), seeds)
        for _, seed, folder in finished(setting, ["FusionReID*"]):
            table = cross_domain(folder.model(), real, cache_directory=paths.cache())
            table.insert(0, "synthetic people", people)
            table.insert(1, "seed", seed)
            tables.append(table[~table["camera embedding"]])
    return pd.concat(tables)


def starts(market: Path, draws: list[int], seeds: list[int]) -> pd.DataFrame:
    """A row for each run on a draw of real people: what it started from, and its accuracy."""
    rows = []
    for start in ("pretrained", "random"):
        profile = replace(PROFILES["demo"], start=start)
        for draw in draws:
            data = DataConfig(name="market1501", size="demo", seed=draw)
            setting = experiments.setting(profile, data, seeds, data_root=market)
            for row, seed, folder in finished(setting):
                labels = {"row": row, "start": start, "draw": draw, "seed": seed}
                rows.append(labels | folder.result["features"]["all"])
    return pd.DataFrame(rows)


def write(table: pd.DataFrame, path: Path) -> None:
    """Writes and prints a table, accuracies in percent."""
    accuracies = table.select_dtypes("float").columns
    table[accuracies] = (100 * table[accuracies]).round(2)
    table.to_csv(path, index=False)
    print(table.to_string(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--market", type=Path, required=True, help="holds Market-1501's folder")
    parser.add_argument("--draws", type=int, nargs="*", default=[0, 1], help="of Market-1501")
    parser.add_argument(
        "--data-seeds", type=int, nargs="*", default=[100, 0, 1], help="synthetic sets"
    )
    parser.add_argument("--people", type=int, nargs="*", default=[128, 512, 2400], help="rendered")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="of training")
    parser.add_argument("--only", choices=["transfer", "curve", "starts"], help="one table")
    options = parser.parse_args()
    real = real_people(options.market, options.draws)
    seeds = options.seeds
    tables = {
        "transfer": lambda: tried(real, options.data_seeds, seeds),
        "curve": lambda: curve(real, options.people, seeds),
        "starts": lambda: starts(options.market, options.draws, seeds),
    }
    for name, table in tables.items():
        if options.only in (None, name):
            write(table(), RESULTS / f"{name}.csv")


if __name__ == "__main__":
    main()
