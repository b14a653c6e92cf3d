"""Simple reasons for the paper's gains, tried on the recorded runs; and the probe of its thesis.

    python benchmarks/controls.py --market /data

Trains nothing: it reads finished runs of the demo profile, those of Table II on draws of
Market-1501 and of synthetic people, and those of Table VI on draws of Market-1501. Writes five
tables to benchmarks/results/.

- controls.csv: are two different branches more than two networks of one kind, side by side? Do
  features that are scaled to equal length before they stand side by side do as well? Where does
  the gain of LRU come from, which has two features and losses more than DFE?
- pairs.csv: is each pair of Table VI more than its two backbones, trained apart, side by side?
- attention.csv: what does a model lose, if a plain mean stands in place of attention? For every
  finished run that has attention, those on all of Market-1501 (`whole_set.py --seeds 0 1`) too.
- probe.csv: does the CNN lead at local cues, and the Transformer at global ones, in every network?
- verification.csv: is it the same person? Rates of the full model, and how far its probabilities,
  calibrated on people of training, are off on others.

In controls.csv two networks stand side by side in every pair of training seeds, of which there
must be three or more. Pairs share networks, so their spread would be too small. It is taken from
jackknife pseudo-values, one for each seed (Tukey 1958). In pairs.csv the CNN and the Transformer
have the same seed, so no network stands in two runs. Only numbers of real people are written.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from fusionreid import experiments, paths
from fusionreid.config import DataConfig
from fusionreid.data import Dataset
from fusionreid.data.datasets import open_data, open_probe
from fusionreid.evaluation import attention, probe, verification
from fusionreid.evaluation.embedding import normalised
from fusionreid.evaluation.evaluate import Retrieval, retrieve
from fusionreid.models.fusionreid import FusionReID
from fusionreid.paper.intervals import difference_interval, paired_difference
from fusionreid.training.runs import RunFolder

RESULTS = paths.ROOT / "benchmarks/results"
ROWS = {
    "CNN": "ResNet50",
    "Transformer": "ViT-B/16*",
    "DFE": "DFE",
    "LRU": "DFE + LRU",
    "full": "FusionReID*",
}
TABLES = ["controls", "pairs", "attention", "probe", "verification"]
STAGES = {"before fusion": "", "refined": "_refined", "fused": "_fused"}
# Each control minus what it is compared with, both in mAP.
CONTRASTS = {
    "CNN and Transformer, minus two CNNs": ("CNN + Transformer", "CNN + CNN"),
    "CNN and Transformer, minus two Transformers": (
        "CNN + Transformer",
        "Transformer + Transformer",
    ),
    "full model, minus two Transformers": ("full", "Transformer + Transformer"),
    "full model, minus CNN and Transformer": ("full", "CNN + Transformer"),
    "two Transformers, minus one": ("Transformer + Transformer", "Transformer"),
    "trained together (DFE), minus trained apart": ("DFE", "CNN + Transformer"),
    "DFE, features of equal length, minus as they are": ("DFE, equal length", "DFE"),
    "full model, features of equal length, minus as they are": ("full, equal length", "full"),
    "DFE + LRU, all four features, minus DFE": ("LRU", "DFE"),
    "DFE + LRU, the two features before LRU, minus DFE": ("LRU, before", "DFE"),
    "DFE + LRU, the two refined features, minus DFE": ("LRU, refined", "DFE"),
    "DFE + LRU, all four features, minus the two refined": ("LRU", "LRU, refined"),
}


def side_by_side(*parts: Retrieval) -> Retrieval:
    """The features of several networks, each of them scaled to length 1."""
    query = {}
    gallery = {}
    for place, part in enumerate(parts):
        for name, features in part.query_features.items():
            query[f"{place} {name}"] = normalised(features)
            gallery[f"{place} {name}"] = normalised(part.gallery_features[name])
    return parts[0]._replace(query_features=query, gallery_features=gallery)


def some_features(retrieval: Retrieval, names: list[str]) -> Retrieval:
    """The same images by some of their features."""
    query = {name: retrieval.query_features[name] for name in names}
    gallery = {name: retrieval.gallery_features[name] for name in names}
    return retrieval._replace(query_features=query, gallery_features=gallery)


def of_people(retrieval: Retrieval) -> tuple[np.ndarray, np.ndarray]:
    """The mean average precision of each person's queries, and how many these are."""
    ranking = retrieval.rank()
    owners = retrieval.query.ids[ranking.queries]
    people, queries = np.unique(owners, return_counts=True)
    return ranking.average_precision @ (owners[:, None] == people) / queries, queries


def pseudo_values(pairs: dict[tuple[int, int], np.ndarray]) -> np.ndarray:
    """(seeds, people) what each training seed contributes to the mean over pairs of seeds.

    With n seeds it is n times the mean of all pairs, minus n - 1 times that of the pairs without
    the seed. The mean over seeds is the mean over pairs. If each network contributes an amount of
    its own, the values are these amounts.
    """
    seeds = sorted({seed for pair in pairs for seed in pair})
    everything = np.mean(list(pairs.values()), axis=0)
    values = []
    for seed in seeds:
        without = np.mean([value for pair, value in pairs.items() if seed not in pair], axis=0)
        values.append(len(seeds) * everything - (len(seeds) - 1) * without)
    return np.stack(values)


def corrected(rows: list[dict]) -> pd.DataFrame:
    """The rows of a table, and in `corrected` their p after Benjamini and Hochberg."""
    table = pd.DataFrame(rows).rename(columns={"mean": "difference"})
    return table.assign(corrected=false_discovery_control(table["p"]))


def retrievals(table: str, rows, setting, dataset) -> dict[tuple[str, int], Retrieval]:
    """The features of the test images, by row of the table and training seed."""
    configs = {variant.name: variant.config for variant in experiments.variants(table)}
    cache = paths.cache(setting.data_root)
    found = {}
    for row in rows:
        for seed in setting.seeds:
            folder = RunFolder(setting.run(configs[row], seed), setting.runs_root)
            if not folder.finished:
                raise SystemExit(f"{folder.path}: expected a finished run of {row}, found none")
            found[row, seed] = retrieve(folder.model(), dataset, cache_directory=cache)
    return found


def scores(setting, dataset) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Of each network or combination: the mAP (seeds, people); and each person's queries."""
    seeds = setting.seeds
    by_row = retrievals("table2", ROWS.values(), setting, dataset)
    models = {(name, seed): by_row[row, seed] for name, row in ROWS.items() for seed in seeds}

    # Of each training seed.
    alone = {name: [models[name, seed] for seed in seeds] for name in ROWS}
    alone["DFE, equal length"] = [side_by_side(each) for each in alone["DFE"]]
    alone["full, equal length"] = [side_by_side(each) for each in alone["full"]]
    alone["LRU, before"] = [some_features(each, ["cnn", "transformer"]) for each in alone["LRU"]]
    alone["LRU, refined"] = [
        some_features(each, ["cnn_refined", "transformer_refined"]) for each in alone["LRU"]
    ]
    found = {}
    for name, networks in alone.items():
        found[name] = np.stack([of_people(each)[0] for each in networks])

    # Of each pair of training seeds.
    for one, other in (("CNN", "CNN"), ("Transformer", "Transformer"), ("CNN", "Transformer")):
        choose = combinations if one == other else permutations
        pairs = {
            (i, j): of_people(side_by_side(models[one, i], models[other, j]))[0]
            for i, j in choose(seeds, 2)
        }
        found[f"{one} + {other}"] = pseudo_values(pairs)
    _, queries = of_people(alone["DFE"][0])
    return found, queries


def controls(settings: list) -> pd.DataFrame:
    """A row for each contrast: its two means and their difference, with its interval, in mAP."""
    parts = []
    for setting in settings:
        dataset = open_data(setting.data, setting.data_root)
        print(f"{dataset.name} {dataset.version}", flush=True)
        parts.append(scores(setting, dataset))
    rows = []
    for contrast, (one, other) in CONTRASTS.items():
        means = {}
        for side, name in (("value", one), ("beside", other)):
            means[side] = 100 * np.mean(
                [found[name] @ queries / queries.sum() for found, queries in parts]
            )
        less = [(100 * (found[one] - found[other]), queries) for found, queries in parts]
        rows.append({"contrast": contrast} | means | difference_interval(less)._asdict())
    return corrected(rows)


def pairs_of_backbones(settings: list) -> pd.DataFrame:
    """A row for each pair of Table VI, and their mean: the pair minus its two backbones, in mAP.

    The backbones are trained apart and stand side by side, the simple way to have both. `value` is
    the pair's, `beside` that of the backbones.
    """
    names = [variant.name for variant in experiments.variants("table6")]
    fused = [name for name in names if " + " in name]
    draws = defaultdict(list)
    for setting in settings:
        dataset = open_data(setting.data, setting.data_root)
        print(f"{dataset.name} {dataset.version}", flush=True)
        models = retrievals("table6", names, setting, dataset)
        for name in fused:
            cnn, transformer = name.split(" + ")
            together = []
            apart = []
            for seed in setting.seeds:
                both = side_by_side(models[cnn, seed], models[transformer, seed])
                values, queries = of_people(models[name, seed])
                together.append(100 * values)
                apart.append(100 * of_people(both)[0])
            draws[name].append((np.stack([together, apart]), queries))
        # The nine pairs as one: person by person, in every run.
        mean = np.mean([draws[name][-1][0] for name in fused], axis=0)
        draws["all nine"].append((mean, queries))

    return corrected([{"pair": name} | compared(parts) for name, parts in draws.items()])


def attention_replaced(settings: list) -> pd.DataFrame:
    """What plain means in place of attention change, for every finished run that has attention.

    A row for each run, test set, feature and place of attention, as `with_means`. A run on a whole
    real set is also tested on two draws of it, which are smaller.
    """
    tables = []
    for setting in settings:
        tests = [setting.data]
        if setting.data.size == "full":  # the people of the draws are among its own
            tests += [replace(setting.data, size="demo", seed=seed) for seed in (0, 1)]
        runs = experiments.plan([*experiments.EXPERIMENTS, "differences"], setting)
        for data in tests:
            dataset = open_data(data, setting.data_root)
            for row, run in runs.items():
                folder = RunFolder(run, setting.runs_root)
                if folder.finished and run.model.fusion and run.model.fusion.units:
                    print(f"{dataset.name} {dataset.version}, {row}", flush=True)
                    table = with_means(folder.model(), dataset, paths.cache(setting.data_root))
                    table.insert(0, "data", f"{dataset.name} {dataset.version}")
                    table.insert(1, "row", row.partition(", also")[0].partition(" (seed")[0])
                    tables.append(table.assign(seed=run.seed, commit=folder.result["commit"]))
    if not tables:
        names = ", ".join(str(setting.data) for setting in settings)
        raise SystemExit(f"{names}: expected a finished run that has attention, found none")
    return pd.concat(tables)


def with_means(model: FusionReID, dataset: Dataset, cache: Path) -> pd.DataFrame:
    """What plain means in place of attention change in a model, which is not trained anew.

    A row for each feature and place (`attention.replaceable`): `value` is the mAP with means there,
    `beside` as trained. Each person counts once, however many queries there are of one; `low` to
    `high` is the interval of the difference over people. `entropy` is that of the place's heads as
    trained, a share of its maximum: 1 is a plain mean.
    """
    ranked = attention.evaluate_replaced(model, dataset, cache_directory=cache)
    heads = pd.DataFrame(attention.attention_entropy(model, dataset.query))
    rows = []
    for (feature, where), _ in ranked.groupby(["feature", "replaced"], sort=False):
        if where == "nothing":
            continue
        of_feature = ranked[ranked["feature"] == feature]
        found = paired_difference(of_feature, "mAP", {"replaced": where}, {"replaced": "nothing"})
        of_place = (heads["unit"] == where) | ("layer " + heads["layer"].astype(str) == where)
        entropy = heads.loc[of_place | (where == "all"), "entropy"].mean()
        low, high = (found["difference"] + sign * found["half"] for sign in (-1, 1))
        rows.append(
            {
                "feature": feature,
                "replaced": where,
                "entropy": entropy,
                "value": found["first"],
                "beside": found["second"],
                "difference": found["difference"],
                "low": low,
                "high": high,
                "people": of_feature["person"].nunique(),
            }
        )
    return pd.DataFrame(rows)


def compared(parts: list[tuple[np.ndarray, np.ndarray]]) -> dict:
    """`value` and `beside`, and the interval of their difference.

    `parts` has for each draw the mAP of both (2, seeds, people), and each person's queries.
    """
    values = [each @ queries / queries.sum() for each, queries in parts]  # (2, seeds) of a draw
    value, beside = np.mean(values, axis=(0, 2))
    less = [(one - other, queries) for (one, other), queries in parts]
    return {"value": value, "beside": beside} | difference_interval(less)._asdict()


def full_models(setting) -> Iterator[tuple[int, FusionReID]]:
    """Each training seed, and the full model that was trained with it."""
    for seed in setting.seeds:
        run = setting.run(experiments.variants("table2")[-1].config, seed)
        yield seed, RunFolder(run, setting.runs_root).model()


def probed(settings: list) -> pd.DataFrame:
    """A row for each full model and stage: the probe's contrast, in points of right choices."""
    rows = []
    for setting in settings:
        people = open_probe(paths.DATA, setting.data.seed)
        for seed, model in full_models(setting):
            choices = probe.of_model(model, people, cache_directory=paths.cache())
            for name, stage in STAGES.items():
                found = probe.contrast(choices, f"cnn{stage}", f"transformer{stage}")
                where = {"data_seed": setting.data.seed, "seed": seed, "features": name}
                points = {"difference": found.mean, "low": found.low, "high": found.high}
                points = {key: 100 * value for key, value in points.items()}
                rows.append(where | points | {"bases": found.bases})
    return pd.DataFrame(rows)


def verified(settings: list) -> pd.DataFrame:
    """A row for each full model: rates of verification and calibration error, in percent."""
    rows = []
    for setting in settings:
        dataset = open_data(setting.data, setting.data_root)
        cache = {"cache_directory": paths.cache(setting.data_root)}
        for seed, model in full_models(setting):
            retrieval = retrieve(model, dataset, **cache)
            found = verification.verify(retrieval)
            calibration = verification.calibrate(model, dataset, **cache)
            pairs = verification.pairs_by_cosine(retrieval)
            table = verification.reliability(calibration, pairs)
            where = {"data": f"{dataset.name} {dataset.version}", "seed": seed}
            rates = {name: 100 * rate.value for name, rate in found.rates.items()}
            error = {"calibration error": 100 * verification.calibration_error(table)}
            rows.append(where | rates | error | {"people": found.people})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--market", type=Path, help="holds Market-1501's folder (default: skip it)")
    parser.add_argument("--data-seeds", type=int, nargs="*", default=[0, 1], help="of the draws")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of training")
    parser.add_argument(
        "--market-seeds", type=int, nargs="*", default=[0, 1, 2, 3], help="the same on real people"
    )
    parser.add_argument(
        "--two-seeds", type=int, nargs="*", default=[0, 1], help="of Table VI, and of attention"
    )
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, help="which tables")
    options = parser.parse_args()

    def settings(name: str, root: Path, seeds: list[int]) -> list:
        data = [DataConfig(name=name, size="demo", seed=seed) for seed in options.data_seeds]
        return [experiments.setting("demo", each, seeds, data_root=root) for each in data]

    synthetic = {"synthetic": settings("synthetic", paths.DATA, options.seeds)}
    two = {"synthetic": settings("synthetic", paths.DATA, options.two_seeds)}
    real = {}
    real_two = {}
    whole = {}
    if options.market:
        data = DataConfig(name="market1501", size="full")  # benchmarks/whole_set.py trains it
        setting = experiments.setting("demo", data, options.two_seeds, data_root=options.market)
        whole["whole"] = [setting]
        real["real"] = settings("market1501", options.market, options.market_seeds)
        real_two["real"] = settings("market1501", options.market, options.two_seeds)
    measured = {
        "controls": (controls, synthetic | real),
        "pairs": (pairs_of_backbones, real_two),
        "attention": (attention_replaced, two | real_two | whole),
        "probe": (probed, synthetic),
        "verification": (verified, synthetic | real),
    }
    for name in options.only:
        measure, people = measured[name]
        if not people:
            print(f"{name}: left out, as it needs --market")
            continue
        table = pd.concat(measure(each).assign(of=kind) for kind, each in people.items())
        table.to_csv(RESULTS / f"{name}.csv", index=False, float_format="%.3f")
        print(f"\n{table.round(2).to_string(index=False)}")


if __name__ == "__main__":
    main()
