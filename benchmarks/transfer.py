"""What synthetic people teach for real ones: networks trained on them alone, tried on real people.

    python benchmarks/transfer.py --market /data --draws 0 1 --data-seeds 100

Trains the missing runs (the single branches and the full model of Table II, demo profile), and
ranks draws of 150 people of Market-1501 without training there. Prints a table, and writes it to
benchmarks/results/transfer.csv. Only numbers of real people are written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from fusionreid import experiments, jobs, paths
from fusionreid.config import DataConfig
from fusionreid.data import open_dataset
from fusionreid.evaluation.evaluate import cross_domain
from fusionreid.training.runs import RunFolder

ROWS = ["ResNet50", "ViT-B/16*", "FusionReID*"]  # the demo's stand-ins of these


def tried(market: Path, draws: list[int], data_seed: int, seeds: list[int]) -> pd.DataFrame:
    """A row for each run, draw, and with or without the cameras of training."""
    data = DataConfig(size="demo", seed=data_seed)
    real = {f"draw {k}": open_dataset("market1501", market, size="demo", seed=k) for k in draws}
    tables = []
    for seed in seeds:
        setting = experiments.setting("demo", data, [seed])
        jobs.run_all("table2", setting, rows=ROWS)
        for variant in experiments.variants("table2"):
            if variant.name not in ROWS:
                continue
            run = setting.run(variant.config, seed)
            folder = RunFolder(run, setting.runs_root)
            table = cross_domain(folder.model(), real, cache_directory=paths.cache())
            table.insert(0, "row", variant.name)
            table.insert(1, "trained on", "{name} {version}".format(**folder.result["data"]))
            table.insert(2, "seed", seed)
            tables.append(table)
    return pd.concat(tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--market", type=Path, required=True, help="holds Market-1501's folder")
    parser.add_argument("--draws", type=int, nargs="*", default=[0, 1], help="of Market-1501")
    parser.add_argument("--data-seeds", type=int, nargs="*", default=[100], help="synthetic sets")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="of training")
    parser.add_argument("--out", type=Path, default=paths.ROOT / "benchmarks/results/transfer.csv")
    options = parser.parse_args()
    tables = []
    for data_seed in options.data_seeds:
        tables.append(tried(options.market, options.draws, data_seed, options.seeds))
    table = pd.concat(tables)
    accuracies = table.select_dtypes("float").columns
    table[accuracies] = (100 * table[accuracies]).round(2)
    table.to_csv(options.out, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
