"""Forced choices between people who differ in one cue, against a slow obvious loop."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fusionreid.__main__ import main
from fusionreid.config import FEATURES
from fusionreid.data import datasets, open_dataset
from fusionreid.data.truth import attributes
from fusionreid.evaluation import probe
from fusionreid.evaluation.evaluate import Retrieval
from fusionreid.evaluation.ranking import Labels

CUES = {"print": "local", "shoes": "local", "build": "global", "gait": "global"}
BASES = 3  # of each cue


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three bases for each of four cues, each with three look-alikes; nobody to train on."""
    folder = tmp_path_factory.mktemp("probe")
    for name in ("bounding_box_train", "query", "bounding_box_test"):
        (folder / name).mkdir()
    rows = []
    for group, strength in product(range(len(CUES) * BASES), range(4)):
        cue = list(CUES)[group % len(CUES)]
        person = 5001 + 4 * group + strength
        for camera, name in enumerate(("query", "bounding_box_test")):
            for number in range(2):
                file = f"{name}/{person}_c{camera + 1}s1_{number:06}_00.png"
                colour = (20 * group, 60 * strength, 100 * camera + 50 * number)
                Image.new("RGB", (8, 16), colour).save(folder / file)
                rows.append((file, person, CUES[cue], cue, group + 1, strength))
    columns = ["file", "identity", "kind", "cue", "group", "strength"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "attributes.csv", index=False)
    return open_dataset("synthetic", folder)


@pytest.fixture(scope="module")
def tables(dataset):
    return attributes(dataset.query), attributes(dataset.gallery)


@pytest.fixture(scope="module")
def retrieval(dataset, tables):
    """Features "sees" (who it is), "blind" (all are one) and "cnn", which sees local cues alone."""
    random = np.random.default_rng(0)
    sides = []
    for table in tables:
        person = (table["identity"] - 5001).to_numpy()
        base = person - table["strength"].to_numpy()
        is_local = (table["kind"] == "local").to_numpy()
        one_hot = np.eye(48, dtype=np.float32)
        noise = random.standard_normal((3, len(table), 48), np.float32)
        sides.append(
            {
                "sees": one_hot[person],
                "blind": np.ones((len(table), 4), np.float32),
                "cnn": one_hot[np.where(is_local, person, base)] + 0.1 * noise[0],
                "transformer": one_hot[person] + 0.5 * noise[1],
                "noisy": one_hot[person] + noise[2],
            }
        )
    return Retrieval(*sides, Labels.of(dataset.query), Labels.of(dataset.gallery))


@pytest.fixture(scope="module")
def choices(retrieval, tables):
    return probe.choices(retrieval, *tables)


def test_choices_are_the_slow_loop(retrieval, tables, choices):
    query, gallery = retrieval.select("noisy")
    asked, shown = (table.to_dict("records") for table in tables)
    found = choices[choices["feature"] == "noisy"].set_index(["group", "strength"])
    assert len(found) == len(CUES) * BASES * 3
    for group, strength in product(range(1, 13), (1, 2, 3)):
        right = []
        pair = {0, strength}
        for q, own, other in product(range(len(asked)), range(len(shown)), range(len(shown))):
            if not asked[q]["group"] == shown[own]["group"] == shown[other]["group"] == group:
                continue
            mine, same, alike = (row["strength"] for row in (asked[q], shown[own], shown[other]))
            of_one_pose = shown[own]["file"][-12:] == shown[other]["file"][-12:]
            if mine == same and {mine, alike} == pair and of_one_pose:
                nearer = query[q] @ gallery[own] - query[q] @ gallery[other]
                right.append(1.0 if nearer > 0 else 0.0)
        assert len(right) == 2 * 2 * 2  # of two people, two queries, two images of the gallery
        row = found.loc[(group, strength)]
        assert row["accuracy"] == pytest.approx(np.mean(right))
        assert row["cue"] == list(CUES)[(group - 1) % 4] and row["kind"] == CUES[row["cue"]]


def test_ties_count_one_half(choices):
    accuracy = choices.groupby("feature")["accuracy"]
    assert (accuracy.min()["blind"], accuracy.max()["blind"]) == (0.5, 0.5)
    assert (accuracy.min()["sees"], accuracy.max()["sees"]) == (1, 1)


def test_accuracies_are_means_over_bases_and_cues(choices):
    table = probe.accuracies(choices).set_index(["feature", "kind", "cue", "strength"])
    assert len(table) == 6 * (4 + 2) * 3  # five features and all; cues and kinds; strengths
    rows = choices[(choices["feature"] == "noisy") & (choices["strength"] == 2)]
    shoes = table.loc[("noisy", "local", "shoes", 2)]
    assert shoes["accuracy"] == pytest.approx(rows[rows["cue"] == "shoes"]["accuracy"].mean())
    assert shoes["pairs"] == BASES and shoes["low"] <= shoes["accuracy"] <= shoes["high"]
    local = table.loc[("noisy", "local", "all", 2)]
    assert local["accuracy"] == pytest.approx(rows[rows["kind"] == "local"]["accuracy"].mean())
    assert local["pairs"] == 2 * BASES


def test_the_interval_is_that_of_many_draws():
    random = np.random.default_rng(1)
    accuracy = random.uniform(0.4, 1, 40)
    table = pd.DataFrame({"feature": "x", "kind": "local", "cue": "bag", "group": range(40),
                          "strength": 1, "accuracy": accuracy})  # fmt: skip
    row = probe.accuracies(table).iloc[0]
    error = accuracy.std() / np.sqrt(40)
    assert row["high"] - row["accuracy"] == pytest.approx(1.96 * error, rel=0.1)
    assert row["accuracy"] - row["low"] == pytest.approx(1.96 * error, rel=0.1)
    assert np.isnan(probe.accuracies(table[:1]).iloc[0]["low"])  # one base


def test_contrast_is_the_slow_loop(choices):
    found = probe.contrast(choices)
    ahead = {"local": [], "global": []}
    for cue, kind in CUES.items():
        rows = choices[choices["cue"] == cue]
        means = rows.groupby("feature")["accuracy"].mean()
        ahead[kind].append(means["cnn"] - means["transformer"])
    assert found.on_local == pytest.approx(np.mean(ahead["local"]))
    assert found.on_global == pytest.approx(np.mean(ahead["global"]))
    assert found.mean == pytest.approx(found.on_local - found.on_global)
    assert 0 < found.low < found.mean < found.high and found.bases == 12
    assert "12 bases" in str(found)
    opposite = probe.contrast(choices, "transformer", "cnn")
    assert opposite.mean == pytest.approx(-found.mean)
    with pytest.raises(ValueError, match="feature='resnet' is not known"):
        probe.contrast(choices, "resnet")


def test_a_file_of_features_is_a_feature(dataset, retrieval, choices, tmp_path):
    file = tmp_path / "features.npz"
    sides = retrieval.query_features["noisy"], retrieval.gallery_features["noisy"]
    np.savez(file, query=sides[0], gallery=sides[1])
    expected = choices[choices["feature"] == "noisy"]["accuracy"].tolist()
    assert probe.of_file(file, dataset)["accuracy"].tolist() == expected


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"query": np.ones((96, 4))}, r"expected arrays query and gallery, found \['query'\]"),
        ({"query": np.ones((95, 4))}, r"expected query \(96, 4\), found \(95, 4\)"),
        (
            {"query": np.ones((96, 4)), "gallery": np.ones((96, 5))},
            r"expected gallery \(96, 4\), found \(96, 5\)",
        ),
        ({"query": np.full((96, 4), np.nan)}, "expected finite numbers in query"),
    ],
)
def test_a_wrong_file_of_features_is_named(dataset, tmp_path, arrays, message):
    file = tmp_path / "features.npz"
    np.savez(file, **arrays)
    with pytest.raises(ValueError, match=f"features.npz: {message}"):
        probe.of_file(file, dataset)


def test_a_file_that_is_no_npz_is_named(dataset, tmp_path):
    np.save(tmp_path / "features.npy", np.ones((96, 4)))
    with pytest.raises(ValueError, match=r"features.npy: expected an .npz file"):
        probe.of_file(tmp_path / "features.npy", dataset)
    with pytest.raises(FileNotFoundError, match="missing"):
        probe.of_file(tmp_path / "missing.npz", dataset)


@pytest.fixture
def command(dataset, monkeypatch, tmp_path):
    """Runs the command on the made-up set."""
    monkeypatch.setattr(datasets, "open_probe", lambda *arguments: dataset)
    return lambda *words: main(["probe", *words, "--data-root", str(tmp_path)])


def test_the_command_prints_cues_and_the_contrast(command, capsys, tmp_path):
    out = tmp_path / "probe.csv"
    assert command("demo", "--out", str(out)) == 0
    printed = capsys.readouterr().out
    assert "shoes" in printed and "cnn_fused minus transformer_fused: " in printed
    table = pd.read_csv(out)
    assert set(table["feature"]) == {"all", *FEATURES}
    assert table["accuracy"].between(0, 1).all()


def test_the_command_takes_a_file_of_features(command, retrieval, capsys, tmp_path):
    file = tmp_path / "features.npz"
    sees = retrieval.query_features["sees"], retrieval.gallery_features["sees"]
    np.savez(file, query=sees[0], gallery=sees[1])
    assert command("--features", str(file)) == 0
    printed = capsys.readouterr().out
    assert "100.0" in printed and "less" not in printed
    assert command("demo", "--features", str(file)) == 2
    assert "expected a model or --features, found both: demo" in capsys.readouterr().err
