"""Networks side by side: what each training seed adds."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations

import controls
import numpy as np
import pandas as pd
import pytest
from controls import pseudo_values

from fusionreid import build_model, paths
from fusionreid.config import PAPER, DataConfig, profile
from fusionreid.data import Dataset
from fusionreid.evaluation.evaluate import Retrieval
from fusionreid.evaluation.ranking import Labels
from fusionreid.paper import experiments


def test_pseudo_values_are_what_each_network_adds():
    random = np.random.default_rng(0)
    cnn, transformer = random.normal(size=(2, 4, 7))  # of each seed and person
    same = {(i, j): (cnn[i] + cnn[j]) / 2 for i, j in combinations(range(4), 2)}
    np.testing.assert_allclose(pseudo_values(same), cnn)
    different = {(i, j): cnn[i] + transformer[j] for i, j in permutations(range(4), 2)}
    np.testing.assert_allclose(pseudo_values(different), cnn + transformer)


def test_their_mean_is_that_of_the_pairs():
    pairs = {pair: np.random.default_rng(pair).normal(size=5) for pair in combinations(range(3), 2)}
    found = pseudo_values(pairs)
    assert found.shape == (3, 5)
    np.testing.assert_allclose(found.mean(axis=0), np.mean(list(pairs.values()), axis=0))


def two_draws(monkeypatch) -> list[experiments.Setting]:
    """Two training seeds on each of two draws; their data sets hold nobody."""
    monkeypatch.setattr(
        controls, "open_data", lambda *_: Dataset("made", "", paths.ROOT, [], [], [])
    )
    draws = [DataConfig(size="demo", seed=seed) for seed in (0, 1)]
    return [experiments.setting("demo", each, [0, 1]) for each in draws]


def test_a_pair_is_compared_with_its_two_backbones_side_by_side(monkeypatch):
    """The first pair is its backbones side by side; each other pair knows everybody."""
    people = np.repeat(np.arange(8), 2)
    query, gallery = (Labels(people, np.full(16, camera)) for camera in (0, 1))
    names = [variant.name for variant in experiments.variants("table6")]
    first = names[6]

    def retrievals(table, rows, setting, dataset):
        found = {}
        for row, seed in ((row, seed) for row in rows for seed in setting.seeds):
            random = np.random.default_rng([names.index(row), seed, setting.data.seed])
            sides = random.normal(size=(2, 16, 4)).astype(np.float32)
            if " + " in row:
                sides = np.stack([np.eye(8, dtype=np.float32)[people]] * 2)
            query_features, gallery_features = ({"feature": side} for side in sides)
            found[row, seed] = Retrieval(query_features, gallery_features, query, gallery)
        for seed in setting.seeds:
            backbones = [found[part, seed] for part in first.split(" + ")]
            found[first, seed] = controls.side_by_side(*backbones)
        return found

    monkeypatch.setattr(controls, "retrievals", retrievals)
    table = controls.pairs_of_backbones(two_draws(monkeypatch)).set_index("pair")
    assert len(table) == 10 and (table["runs"] == 4).all()
    assert table.loc[first, "difference"] == 0
    assert table["value"].drop([first, "all nine"]).eq(100).all()
    assert (table["difference"].drop(first) > 20).all()
    np.testing.assert_allclose(table["value"] - table["beside"], table["difference"])
    assert table.loc["all nine", "difference"] == pytest.approx(table["difference"][:9].mean())


def test_means_in_place_of_attention_are_compared_person_by_person(tiny_dataset, monkeypatch):
    """Means in layer 2 take one point from every query, means everywhere three."""
    lost = {"nothing": 0, "layer 2": 1, "all": 3}

    def evaluate_replaced(model, dataset, **options):
        people = np.repeat(np.arange(9), np.arange(1, 10))  # the last has nine queries
        trained = np.random.default_rng(0).uniform(40, 60, len(people))
        tables = [
            pd.DataFrame(
                {"feature": feature, "replaced": where, "person": people, "mAP": trained - less}
            )
            for feature in ("all", "cnn_fused")
            for where, less in lost.items()
        ]
        return pd.concat(tables, ignore_index=True)

    monkeypatch.setattr(controls.attention, "evaluate_replaced", evaluate_replaced)
    model = build_model(profile("smoke").scale(PAPER), tiny_dataset.num_identities, 3)
    table = controls.with_means(model, tiny_dataset, paths.cache())
    assert len(table) == 4 and (table["people"] == 9).all()
    np.testing.assert_allclose(table["difference"], -table["replaced"].map(lost))
    np.testing.assert_allclose(table["value"] - table["beside"], table["difference"])
    assert (table["low"] <= table["difference"]).all() and table["entropy"].between(0, 1).all()
    heads = pd.DataFrame(controls.attention.attention_entropy(model, tiny_dataset.query))
    means = heads["entropy"].mean(), heads.query("layer == 2")["entropy"].mean()
    assert table["entropy"][:2].tolist() == pytest.approx(means[::-1])


def test_every_finished_run_with_attention_is_looked_at(monkeypatch):
    (setting, other) = two_draws(monkeypatch)
    runs = experiments.plan(["table2"], setting)
    done = [runs[f"table2: {row} (seed 0)"].fingerprint for row in ("DFE", "DFE + LRU + SEU")]

    class Folder:
        def __init__(self, run, root):
            self.finished = run.fingerprint in done
            self.result = {"commit": "0123abc"}

        def model(self):
            return "a model"

    monkeypatch.setattr(controls, "RunFolder", Folder)
    monkeypatch.setattr(controls, "with_means", lambda *_: pd.DataFrame({"difference": [0.0]}))
    table = controls.attention_replaced([setting, other])
    assert table["row"].tolist() == ["table2: DFE + LRU + SEU"], "DFE has no attention"
    assert (table.loc[0, "data"], table.loc[0, "seed"]) == ("made ", 0)

    tested = []
    monkeypatch.setattr(
        controls,
        "open_data",
        lambda data, _: tested.append(data) or Dataset(data.name, "", paths.ROOT, [], [], []),
    )
    whole = replace(setting, data=DataConfig(name="synthetic", size="full"), seeds=(0,))
    done += [run.fingerprint for run in experiments.plan(["table5"], whole).values()]
    assert len(controls.attention_replaced([whole])) == 6, "two rows on three sets"
    assert {(data.size, data.seed) for data in tested} == {("full", 0), ("demo", 0), ("demo", 1)}
    done.clear()
    with pytest.raises(SystemExit, match="expected a finished run that has attention"):
        controls.attention_replaced([setting])
