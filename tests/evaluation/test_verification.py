"""Verification against a slow obvious loop over pairs, and probabilities that come true."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fusionreid import PAPER, build_model, verification
from fusionreid.__main__ import main
from fusionreid.config import profile
from fusionreid.data import datasets
from fusionreid.evaluation import distances
from fusionreid.evaluation.distances import KnownDistances
from fusionreid.evaluation.evaluate import Retrieval, retrieve
from fusionreid.evaluation.ranking import Labels
from fusionreid.evaluation.verification import Calibration, Rate
from fusionreid.models import checkpoints
from fusionreid.training import trained


def pairs(matrix, query, gallery):
    """Distances of genuine and of impostor pairs by person: {identity: (genuine, impostor)}."""
    found = {identity: ([], []) for identity in query.ids if identity >= 0}
    for i, j in np.ndindex(matrix.shape):
        if query.ids[i] >= 0 and query.cameras[i] != gallery.cameras[j]:
            kind = int(query.ids[i] != gallery.ids[j])
            found[query.ids[i]][kind].append(matrix[i, j])
    return found


def reference(genuine, impostor):
    """The rates, by a loop over all thresholds."""
    far, tar = [0.0], [0.0]
    for threshold in sorted({*genuine, *impostor}):
        far.append(np.mean(np.array(impostor) <= threshold))
        tar.append(np.mean(np.array(genuine) <= threshold))
    rates = {}
    for name, limit in verification.FARS.items():
        rates[name] = max(t for f, t in zip(far, tar, strict=True) if f <= limit)
    for point in range(1, len(far)):
        before = far[point - 1] - (1 - tar[point - 1])
        after = far[point] - (1 - tar[point])
        if before < 0 <= after:  # the straight line between two points crosses FAR = 1 - TAR
            share = -before / (after - before)
            rates["EER"] = far[point - 1] + share * (far[point] - far[point - 1])
    return rates


@pytest.fixture(params=["floats", "ties", "worse than chance"])
def case(request):
    """Distances and labels of 8 people, a query of a distractor and distractors in the gallery."""
    random = np.random.default_rng(3)
    query = Labels(random.integers(0, 8, 36), random.integers(0, 4, 36))
    gallery = Labels(random.integers(-1, 8, 90), random.integers(0, 4, 90))
    query.ids[-1] = -1
    apart = query.ids[:, None] != gallery.ids
    near = {"floats": 1.5, "ties": 2, "worse than chance": -1}[request.param]
    matrix = random.normal(3 + near * apart, 1).astype(np.float32)
    if request.param == "ties":
        matrix = matrix.round()
    return matrix, query, gallery


def test_rates_are_the_slow_loop(case):
    found = verification.verify_by(KnownDistances(case[0]), *case[1:])
    genuine, impostor = (sum(kind, []) for kind in zip(*pairs(*case).values(), strict=True))
    assert (found.genuine, found.impostors) == (len(genuine), len(impostor))
    assert found.people == 8
    expected = reference(genuine, impostor)
    assert found.rates.keys() == expected.keys()
    for name, rate in found.rates.items():
        assert rate.value == pytest.approx(expected[name]), name
        assert rate.low <= rate.value <= rate.high
    # The whole curve: the points of all thresholds are on it.
    for threshold in np.quantile(genuine + impostor, [0.02, 0.2, 0.5, 0.9]):
        far = np.mean(np.array(impostor) <= threshold)
        tar = np.mean(np.array(genuine) <= threshold)
        reached = found.tar[np.searchsorted(found.far, far, "right") - 1]
        assert reached >= tar


def test_intervals_are_those_of_people_drawn_again(case, monkeypatch):
    monkeypatch.setattr(verification, "DRAWS", 12)
    found = verification.verify_by(KnownDistances(case[0]), *case[1:])
    people = list(dict(sorted(pairs(*case).items())).values())
    draws = []
    for times in np.random.default_rng(0).multinomial(8, np.full(8, 1 / 8), 12):
        genuine = [each for n, (kind, _) in zip(times, people, strict=True) for each in n * kind]
        impostor = [each for n, (_, kind) in zip(times, people, strict=True) for each in n * kind]
        draws.append(reference(genuine, impostor))
    # The same people are drawn for every feature, so that rates can be compared draw by draw.
    np.testing.assert_allclose(found.draws, [list(draw.values()) for draw in draws], rtol=1e-6)
    for name, rate in found.rates.items():
        ends = np.quantile([draw[name] for draw in draws], [0.025, 0.975])
        assert (rate.low, rate.high) == pytest.approx(tuple(ends)), name


def test_blocks_change_nothing_and_no_matrix_is_held(case, monkeypatch):
    whole = verification.verify_by(KnownDistances(case[0]), *case[1:])
    monkeypatch.setattr(distances, "ROWS", 7)
    sizes = []

    class Watched(KnownDistances):
        def block(self, queries):
            block = super().block(queries)
            sizes.append(block.size)
            return block

    found = verification.verify_by(Watched(case[0]), *case[1:])
    assert found.rates == whole.rates and max(sizes) <= 7 * 90
    np.testing.assert_array_equal(found.far, whole.far)
    np.testing.assert_array_equal(found.tar, whole.tar)


def test_a_curve_of_few_points_gives_nearly_the_same_intervals(case, monkeypatch):
    whole = verification.verify_by(KnownDistances(case[0]), *case[1:])
    monkeypatch.setattr(verification, "POINTS", 300)
    found = verification.verify_by(KnownDistances(case[0]), *case[1:])
    for name, rate in found.rates.items():
        assert rate.value == whole.rates[name].value
        assert rate == pytest.approx(whole.rates[name], abs=0.03)


def labels(ids, cameras):
    return Labels(np.array(ids), np.array(cameras))


def test_people_who_are_told_apart_have_no_error():
    query, gallery = labels([0, 1], [0, 0]), labels([0, 1], [1, 1])
    matrix = np.array([[0, 1], [1, 0]], np.float32)
    right = verification.verify_by(KnownDistances(matrix), query, gallery).rates
    assert {name: rate.value for name, rate in right.items()} == {
        "TAR at FAR 1e-2": 1,
        "TAR at FAR 1e-3": 1,
        "EER": 0,
    }
    wrong = verification.verify_by(KnownDistances(1 - matrix), query, gallery).rates
    assert [rate.value for rate in wrong.values()] == [0, 0, 1]
    same = verification.verify_by(KnownDistances(0 * matrix), query, gallery).rates
    assert [rate.value for rate in same.values()] == [0, 0, 0.5]


def test_one_person_tells_nothing_of_others():
    query, gallery = labels([5, 5], [0, 0]), labels([5, 5, 6], [1, 2, 1])
    matrix = np.array([[0, 2, 1], [0, 0, 1]], np.float32)
    rate = verification.verify_by(KnownDistances(matrix), query, gallery).rates["TAR at FAR 1e-2"]
    assert rate.value == 0.75 and np.isnan([rate.low, rate.high]).all()
    assert str(Rate(0.75, 0.5, 0.8125)) == "75.0 (50.0 to 81.2)"


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        (([0, 1], [0, 0]), ([2, 3], [1, 1]), "found none: 0 of 2 have images of their identity"),
        (([0, 1], [0, 0]), ([0, 1], [0, 0]), "all from the query's own camera"),
        (([0, 0], [0, 0]), ([0, 0], [1, 1]), "expected pairs of two people by different cameras"),
        (([0, 1], [0, 1]), ([0, 1], [1, 0]), "expected pairs of two people by different cameras"),
    ],
    ids=["no genuine pair", "one camera", "one person", "no impostor by another camera"],
)
def test_without_pairs_of_both_kinds_there_is_an_error(query, gallery, message):
    sides = labels(*query), labels(*gallery)
    with pytest.raises(ValueError, match=message):
        verification.verify_by(KnownDistances(np.eye(2, dtype=np.float32)), *sides)
    features = {"x": np.eye(2, dtype=np.float32)}
    with pytest.raises(ValueError, match=message):
        verification.pairs_by_cosine(Retrieval(features, features, *sides))


def test_features_that_are_not_finite_are_an_error():
    query = {"x": np.array([[1, 0], [np.nan, 1]], np.float32)}
    gallery = {"x": np.eye(2, dtype=np.float32)}
    retrieval = Retrieval(query, gallery, labels([0, 1], [0, 0]), labels([0, 1], [1, 1]))
    for function in (verification.verify, verification.pairs_by_cosine):
        with pytest.raises(ValueError, match="query_features, row 1: expected finite numbers"):
            function(retrieval)


@pytest.fixture(scope="module")
def retrieval():
    """Noisy vectors of 12 people, of two features."""
    random = np.random.default_rng(5)
    centres = random.normal(size=(12, 6))
    sides = []
    for count in (40, 150):
        side = Labels(random.integers(0, 12, count), random.integers(0, 3, count))
        vectors = centres[side.ids] + 0.5 * random.normal(size=(count, 6))
        sides.append(({"a": vectors[:, :4], "b": vectors[:, 4:]}, side))
    (query, query_labels), (gallery, gallery_labels) = sides
    return Retrieval(query, gallery, query_labels, gallery_labels)


def cosines(retrieval):
    query, gallery = retrieval.select()
    found = pairs(query @ gallery.T, retrieval.query, retrieval.gallery).values()
    return [np.concatenate(kind) for kind in zip(*found, strict=True)]


def test_features_are_verified_alone_and_together(retrieval):
    rates = {name: verification.verify(retrieval, name).rates for name in ("all", "a")}
    expected = reference(*(list(-kind) for kind in cosines(retrieval)))
    assert rates["all"]["EER"].value == pytest.approx(expected["EER"], rel=1e-3)
    assert rates["a"]["EER"].value > rates["all"]["EER"].value
    with pytest.raises(ValueError, match="feature='c' is not known"):
        verification.verify(retrieval, "c")


def test_cosines_are_counted(retrieval):
    counts = verification.pairs_by_cosine(retrieval)
    for row, values in zip(counts, cosines(retrieval), strict=True):
        assert row.sum() == len(values)
        held = np.repeat(verification.COSINES, row)
        np.testing.assert_allclose(held, np.sort(values), atol=1e-4)


def test_the_fit_is_that_of_all_pairs_with_equal_weight(retrieval):
    genuine, impostor = cosines(retrieval)
    high = (len(genuine) + 1) / (len(genuine) + 2)
    low = 1 / (len(impostor) + 2)

    def loss(line):
        total = 0.0
        for values, target in ((genuine, high), (impostor, low)):
            p = 1 / (1 + np.exp(-line[0] * values - line[1]))
            total -= np.mean(target * np.log(p) + (1 - target) * np.log(1 - p))
        return total

    expected = minimize(loss, [1.0, 0.0], method="Nelder-Mead").x
    found = verification.fit(verification.pairs_by_cosine(retrieval))
    assert tuple(found) == pytest.approx(tuple(expected), rel=2e-3)


def test_the_fit_finds_the_line_that_pairs_were_drawn_from():
    """Two normal densities of one width: their log odds are linear, slope (m - n) / s^2."""
    values = verification.COSINES
    counts = [1e6 * np.exp(-((values - mean) ** 2) / 0.02) for mean in (0.5, 0.2)]
    counts = np.array(counts).astype(int)
    found = verification.fit(counts * [[1], [50]])  # their numbers do not matter
    assert found.slope == pytest.approx(30, rel=0.01)
    assert found.offset == pytest.approx(-30 * 0.35, rel=0.01)
    table = verification.reliability(found, counts)
    assert verification.calibration_error(table) < 0.002
    too_sure = Calibration(2 * found.slope, 2 * found.offset)
    assert verification.calibration_error(verification.reliability(too_sure, counts)) > 0.03


def test_the_fit_is_finite_where_no_cosine_is_of_both_kinds():
    counts = np.zeros((2, len(verification.COSINES)), int)
    counts[0, -100] = 50
    counts[1, 9000] = 900
    found = verification.fit(counts)
    high, low = found.probability(verification.COSINES[[-100, 9000]])
    assert high == pytest.approx(51 / 52, abs=1e-3) and low == pytest.approx(1 / 902, abs=1e-3)
    same = np.zeros_like(counts)
    same[:, 5] = 10
    assert np.isfinite(verification.fit(same)).all()


def test_another_prior_multiplies_the_odds():
    calibration = Calibration(10.0, -5.0)
    half = calibration.probability([0.3, 0.5, 0.9])
    few = calibration.probability([0.3, 0.5, 0.9], prior=0.1)
    np.testing.assert_allclose(few / (1 - few), half / (1 - half) / 9)
    assert half[1] == 0.5
    assert calibration.probability(0.9, prior=0) == 0
    with pytest.raises(ValueError, match="prior=1.5; expected a number from 0 to 1"):
        calibration.probability(0.9, prior=1.5)


@pytest.mark.parametrize("prior", [0.5, 0.1])
def test_reliability_is_the_slow_loop(retrieval, prior):
    calibration = Calibration(6.0, -2.0)
    table = verification.reliability(calibration, verification.pairs_by_cosine(retrieval), prior)
    bins = [[], [], [], [], [], [], [], [], [], []]
    kinds = zip((True, False), cosines(retrieval), (prior, 1 - prior), strict=True)
    for genuine, values, weight in kinds:
        for value in verification.COSINES[((values + 1) * 10_000).round().astype(int)]:
            p = float(calibration.probability(value, prior))
            bins[min(int(10 * p), 9)].append((p, genuine, weight / len(values)))
    error = 0.0
    for row, rows in zip(table.to_dict("records"), filter(None, bins), strict=True):
        p, genuine, weights = np.array(rows).T
        assert row["genuine"] == pytest.approx(genuine.sum(), abs=1)  # a cosine rounds otherwise
        assert row["impostor"] == pytest.approx((1 - genuine).sum(), abs=1)
        assert row["predicted"] == pytest.approx(np.average(p, weights=weights), abs=1e-3)
        assert row["observed"] == pytest.approx(np.average(genuine, weights=weights), abs=0.02)
        error += weights.sum() * abs(row["predicted"] - row["observed"])
    assert table["weight"].sum() == pytest.approx(1)
    assert verification.calibration_error(table) == pytest.approx(error, abs=0.01)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(profile("smoke").scale(PAPER), num_classes=4, num_cameras=6).eval()


def test_a_model_is_calibrated_on_training_people(model, tiny_dataset, tmp_path):
    place = {"cache_directory": tmp_path}
    found = verification.calibrate(model, tiny_dataset, **place)
    train = tiny_dataset.train
    halves = replace(tiny_dataset, query=train[::2], gallery=train[1::2])
    values = cosines(retrieve(model, halves, **place))
    assert sum(map(len, values)) == 12 * 12  # cameras 0, 2, 4 and 1, 3, 5: each with each
    means = [found.probability(kind).mean() for kind in values]
    assert means[0] == pytest.approx(1 - means[1], abs=0.02)  # as a fit with equal weights has
    assert means[0] > means[1]


@pytest.fixture
def run(model, tiny_dataset, tmp_path, monkeypatch):
    """A run's folder, and the command on the tiny set."""
    folder = tmp_path / "run"
    checkpoints.save(folder / "checkpoint.safetensors", model)
    (folder / "result.json").write_text("{}")
    monkeypatch.setattr(datasets, "open_data", lambda *arguments: tiny_dataset)
    command = ["verify", str(folder), "--data-root", str(tmp_path), "--device", "cpu"]
    return folder, lambda *words: main([*command, *words])


def test_the_command_prints_rates_and_keeps_a_calibration(run, model, tiny_dataset, capsys):
    folder, command = run
    assert command() == 0
    printed = capsys.readouterr().out
    assert "60 genuine and 180 impostor pairs" in printed
    assert "TAR at FAR 1e-3" in printed and "cnn_fused, with cameras" in printed
    assert "Probabilities" not in printed  # there is no calibration yet
    assert trained.read_calibrations(folder, model) == {}

    assert command("--calibrate") == 0
    assert f"kept: {folder / 'checkpoint.calibration.json'}" in capsys.readouterr().out
    kept = trained.read_calibrations(folder, model)
    place = {"cache_directory": folder}
    for use_cameras in (True, False):
        expected = verification.calibrate(model, tiny_dataset, use_cameras=use_cameras, **place)
        assert tuple(kept[use_cameras]) == pytest.approx(tuple(expected), rel=1e-4)

    assert command("--prior", "0.1") == 0
    printed = capsys.readouterr().out
    assert "Probabilities with cameras" in printed and "observed" in printed
    assert command("--prior", "2") == 2
    assert "prior=2.0; expected a number from 0 to 1" in capsys.readouterr().err


def test_without_cameras_all_pairs_count():
    random = np.random.default_rng(5)
    query = Labels(np.array([0, 1, 2]), np.full(3, -1))
    gallery = Labels(np.array([0, 1, 2, 2]), np.full(4, -1))
    found = verification.verify_by(KnownDistances(random.random((3, 4))), query, gallery)
    assert (found.genuine, found.impostors) == (4, 8)
