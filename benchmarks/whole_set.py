"""The demo's small networks on all of Market-1501: both branches, DFE and the full model.

    python benchmarks/whole_set.py --market /data

Trains the missing runs on all 751 people, at 128 x 64, with one seed: 50 minutes of one core. Ranks
all 3,368 queries in the gallery of 15,913 images, distractors among them: with and without the
camera embedding, and re-ranked. Writes benchmarks/results/whole_set.csv. Then attention of the full
model is replaced by plain means, and the result goes to whole_set_attention.csv. Only numbers of
real people are written.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import pandas as pd
from controls import entropies

from fusionreid import experiments, jobs, paths
from fusionreid.config import DataConfig
from fusionreid.data.datasets import open_data
from fusionreid.evaluation import attention
from fusionreid.evaluation.evaluate import retrieve
from fusionreid.paper import intervals
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


def attention_replaced(setting: experiments.Setting) -> pd.DataFrame:
    """What means in place of attention change in the full model; intervals over people.

    In mAP, but each person counts once, however many queries there are of one.
    """
    dataset = open_data(setting.data, setting.data_root)
    full = experiments.variants("table2")[-1].config
    rows = []
    for seed in setting.seeds:
        folder = RunFolder(setting.run(full, seed), setting.runs_root)
        cache = paths.cache(setting.data_root)
        model = folder.model()
        ranked = attention.evaluate_replaced(model, dataset, cache_directory=cache)
        entropy = entropies(model, dataset)
        for (feature, where), _ in ranked.groupby(["feature", "replaced"], sort=False):
            if where != "nothing":
                found = intervals.paired_difference(
                    ranked[ranked["feature"] == feature],
                    "mAP",
                    {"replaced": where},
                    {"replaced": "nothing"},
                )
                row = {"seed": seed, "feature": feature, "replaced": where}
                row |= {"entropy": entropy[where]}
                rows.append(row | found | {"people": ranked["person"].nunique()})
    return pd.DataFrame(rows)


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
    means = attention_replaced(setting)
    out = options.out.with_name(f"{options.out.stem}_attention.csv")
    means.to_csv(out, index=False, float_format="%.3f")
    print(means.round(2).to_string(index=False))


if __name__ == "__main__":
    main()
