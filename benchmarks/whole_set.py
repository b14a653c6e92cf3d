"""The demo's small networks on all of Market-1501: both branches, DFE and the full model.

    python benchmarks/whole_set.py --market /data

Trains the missing runs on all 751 people, at 128 x 64, with one seed: 50 minutes of one core. Ranks
all 3,368 queries in the gallery of 15,913 images, distractors among them: with and without the
camera embedding, and re-ranked. Writes benchmarks/results/whole_set.csv. Only numbers of real
people are written.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import pandas as pd

from fusionreid import experiments, jobs, paths
from fusionreid.config import DataConfig
from fusionreid.data.datasets import open_data
from fusionreid.evaluation.evaluate import retrieve
from fusionreid.training.runs import RunFolder

ROWS = ["ResNet50", "ViT-B/16*", "DFE", "FusionReID*"]  # the demo's stand-ins of these


def measured(setting: experiments.Setting) -> pd.DataFrame:
    """A row for each network and seed, with and without cameras and re-ranking; in percent."""
    dataset = open_data(setting.data, setting.data_root)
    cache = paths.cache(setting.data_root)
    configs = {variant.name: variant.config for variant in experiments.variants("table2")}
    rows = []
    for name, seed in product(ROWS, setting.seeds):
        folder = RunFolder(setting.run(configs[name], seed), setting.runs_root)
        model = folder.model()
        choices = (True, False) if "transformer" in model.branches else (False,)
        for use_cameras in choices:
            retrieval = retrieve(model, dataset, cache_directory=cache, use_cameras=use_cameras)
            for rerank in (False, True):
                row = {"dataset": dataset.name, "row": name, "seed": seed}
                row |= {"camera embedding": use_cameras, "re-ranked": rerank}
                row |= retrieval.rank(rerank=rerank).summary()
                rows.append(row | {"commit": folder.result["commit"]})
    table = pd.DataFrame(rows)
    accuracies = table.select_dtypes("float").columns
    table[accuracies] = (100 * table[accuracies]).round(2)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--market", type=Path, required=True, help="holds Market-1501's folder")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="of training")
    parser.add_argument("--out", type=Path, default=paths.ROOT / "benchmarks/results/whole_set.csv")
    options = parser.parse_args()
    data = DataConfig(name="market1501", size="full")
    setting = experiments.setting("demo", data, options.seeds, data_root=options.market)
    jobs.run_all("table2", setting, rows=ROWS)
    table = measured(setting)
    table.to_csv(options.out, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
