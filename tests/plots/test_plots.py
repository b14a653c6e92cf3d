"""Every figure is drawn from plain arrays, carries the numbers drawn, and is saved with its twin CSV."""

from __future__ import annotations

import math
import os

os.environ.setdefault("MPLBACKEND", "Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fusionreid import plots
from fusionreid.config import FEATURES, LABELS
from fusionreid.plots.grids import as_pixels
from fusionreid.plots.style import FEATURE_LABELS, FEATURE_STYLES

RANDOM = np.random.default_rng(0)
CURVES = {"CNN": np.linspace(0.4, 0.9, 50), "FusionReID": np.linspace(0.6, 1.0, 50)}
PIXELS = RANDOM.integers(0, 255, (6, 64, 32, 3), dtype=np.uint8)
LISTS = PIXELS.reshape(2, 3, 64, 32, 3)
TERMS = [f"{term}/{name}" for term in ("cross_entropy", "triplet") for name in FEATURES]
METRICS = pd.DataFrame(
    [{"epoch": epoch, "learning_rate": 0.1} | {term: 1 / epoch + 0.01 * place for place, term in enumerate(TERMS)}
     for epoch in range(1, 5) for _ in range(2)]
    + [{"epoch": epoch, "feature": name, "mAP": 0.2 * epoch - 0.02 * place}
       for epoch in range(1, 5) for place, name in enumerate(LABELS)]
)  # fmt: skip
DEPTHS = pd.DataFrame([
    {"depth": depth, "feature": name, "seed": seed, "mAP": 50 + depth + seed + 3 * place, "rank-1": 60 + depth}
    for depth in range(1, 7) for place, name in enumerate(LABELS) for seed in (0, 1)
])  # fmt: skip
DIMENSIONS = pd.DataFrame({"dim": [384, 768, 1536], "feature": "all", "mAP": [60, 61, 60.5], "rank-1": [80, 82, 81],
                           "parameters": [1.0, 2, 3], "macs": [0.1, 0.2, 0.3]})  # fmt: skip
POINTS = pd.DataFrame([
    {"case": case, "metric": metric, "paper": 1.0, "recorded": 0.5 + place, "low": 0.2, "high": 2.0, "ours": 3.0}
    for metric in ("mAP", "rank-1") for place, case in enumerate(("DFE + LRU", "DFE + LRU + SEU"))
])  # fmt: skip
SIDES = {"paper": DEPTHS.query("seed == 0"), "recorded": DEPTHS, "ours": DEPTHS.query("seed == 1")}
WIDTHS = {
    "paper": DIMENSIONS,
    "recorded": DIMENSIONS.assign(here=[48, 96, 192]),
    "ours": DIMENSIONS,
}
TITLES = dict(paper="Paper", recorded="Recorded", ours="Own run")
FIGURES = {
    "cmc": lambda: plots.cmc_curves(CURVES),
    "training": lambda: plots.training_curves(METRICS),
    "map": lambda: plots.map_by_epoch(METRICS, baselines={"colour histogram": 0.2}),
    "likeness": lambda: plots.likeness(pd.DataFrame(RANDOM.random((6, 6)), list(FEATURES), list(FEATURES)).corr()),
    "depth": lambda: plots.accuracy_curves("depth", SIDES, titles=TITLES),
    "dimension": lambda: plots.accuracy_curves("dim", WIDTHS, titles=TITLES),
    "differences": lambda: plots.differences(POINTS, titles=TITLES, label="less that of DFE"),
    "structures": lambda: plots.structures({"a": (("seu", "mfu"), True, False), "b": (("mfu",), True, True)}),
    "batch": lambda: plots.batch_sheet(torch.randn(6, 3, 64, 32), torch.tensor([4, 4, 4, 7, 7, 7])),
    "retrieved": lambda: plots.retrieved_lists(PIXELS[:2], LISTS, [[1, 0, 1], [0, 0, 1]], labels=["AP 50 %", "AP 9 %"]),
    "heat": lambda: plots.heat_maps(PIXELS[:2], {"a": RANDOM.random((2, 5, 2)), "b\nb": RANDOM.random((2, 8, 4))},
                                    gutters=(1,), labels=["x", "y"]),
    "heads": lambda: plots.attention_heads(PIXELS[0], {"SEU 1\nCNN": RANDOM.random((12, 5, 2))}),
    "scored": lambda: plots.heat_maps(PIXELS[:2], {"a": RANDOM.random((2, 5, 2))}, scores={"a": [0.5, 1.25]}),
    "plane": lambda: plots.plane(pd.DataFrame({"x": RANDOM.random(9), "y": RANDOM.random(9), "cue": list("abc") * 3,
                                               "split": ["query"] * 3 + ["gallery"] * 6}), "cue"),
    "scored_heads": lambda: plots.attention_heads(PIXELS[0], {"a": RANDOM.random((2, 5, 2))}, {"a": [0.5, 1.25]}),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_figure_and_its_twin(name, tmp_path):
    figure = FIGURES[name]()
    assert plots.save(figure, f"04_{name}", folder=tmp_path / "figures") is figure
    assert plt.get_fignums() == [], "the figure would be shown twice in a notebook"
    saved = pd.read_csv(tmp_path / "figures" / f"04_{name}.csv")
    assert len(saved) == len(figure.drawn) > 0 and list(saved) == list(figure.drawn)
    with Image.open(tmp_path / "figures" / f"04_{name}.png") as image:
        assert min(image.size) > 150 and len(np.unique(np.asarray(image.convert("L")))) > 20


def test_every_public_function_is_drawn_here():
    names = {name for name in plots.__all__ if name not in ("save", "contact_sheet")}
    code = {name for draw in FIGURES.values() for name in draw.__code__.co_names}
    assert names <= code


def test_drawn_numbers_are_those_given():
    drawn = plots.cmc_curves(CURVES).drawn
    assert drawn["rank"].tolist() == list(range(1, 21))
    np.testing.assert_array_equal(drawn["FusionReID"], CURVES["FusionReID"][:20])
    assert plots.training_curves(METRICS).drawn["triplet/cnn"].tolist() == pytest.approx(
        METRICS["triplet/cnn"].dropna().iloc[::2].tolist()
    )
    heat = plots.heat_maps(PIXELS[:1], {"a": np.arange(10.0).reshape(1, 5, 2)}).drawn
    assert heat["value"].tolist() == list(range(10)) and heat["y"].max() == 4
    lists = plots.retrieved_lists(
        PIXELS[:2], LISTS, [[1, 0, 1], [0, 0, 1]], labels=["A", "B"]
    ).drawn
    assert (
        lists["rank"].tolist() == [1, 2, 3] * 2 and lists["query"].tolist() == ["A"] * 3 + ["B"] * 3
    )


def test_maps_carry_their_scores_and_heads_their_maximum():
    maps = RANDOM.random((2, 5, 2))
    texts = {text.get_text(): text.get_position() for text in FIGURES["scored"]().axes[0].texts}
    assert list(texts) == ["0.50", "1.25"] and texts["0.50"][1] < texts["1.25"][1], (
        "each under its own row"
    )
    heads = plots.attention_heads(PIXELS[0], {"a": maps}, {"a": [0.5, 1.25]})
    assert [text.get_text() for text in heads.axes[0].texts] == [
        f"{score}\nmax {each.max():.2f}" for score, each in zip(("0.50", "1.25"), maps, strict=True)
    ]
    assert heads.drawn.groupby("head")["score"].unique().explode().tolist() == [0.5, 1.25]
    assert "score" not in plots.attention_heads(PIXELS[0], {"a": maps}).drawn
    scaled = (
        plots.attention_heads(PIXELS[0], {"a": np.stack([maps[0], 7 * maps[0]])})
        .axes[0]
        .images[0]
        .get_array()
    )
    one, other = (scaled[:64, start : start + 32] for start in (32 + 2 + 6, 2 * 34 + 6))
    assert np.array_equal(one, other), "a head has a scale of its own"


def test_mean_and_deviation_over_seeds():
    above, _, below, _ = plots.accuracy_curves("depth", SIDES, titles=TITLES).axes
    assert below.lines[0].get_ydata()[0] == pytest.approx(51.5)
    assert len(below.collections) == 7, "one band for each feature"
    assert len(above.collections) == 0
    assert min(line.get_ydata()[0] for line in below.lines[7:]) == 52, "marks of the own run"
    assert len(below.lines) == 14 and len(above.lines) == 7


def test_the_papers_curves_have_axes_of_their_own():
    paper = SIDES["paper"].assign(mAP=10.0)
    above, _, below, _ = plots.accuracy_curves(
        "depth", SIDES | {"paper": paper}, titles=TITLES
    ).axes
    assert above.get_title() == "Paper" and set(above.lines[0].get_ydata()) == {10.0}
    assert (
        below.get_title() == "Recorded\nthin marks: Own run"
        and min(below.lines[0].get_ydata()) > 50
    )


def test_dimensions_say_their_costs_and_their_width_here():
    above, _, below, _ = plots.accuracy_curves("dim", WIDTHS, titles=TITLES).axes
    texts = [[label.get_text() for label in axes.get_xticklabels()] for axes in (above, below)]
    assert texts[0] == ["384\n1 M\n0.1 G", "768\n2 M\n0.2 G", "1536\n3 M\n0.3 G"]
    assert texts[1][0] == "384\n(48 here)\n1 M\n0.1 G"


def test_missing_runs_are_gaps():
    nothing = {"recorded": math.nan, "low": math.nan, "high": math.nan}
    assert (
        plots.differences(POINTS.assign(**nothing), titles=TITLES, label="more")
        .drawn["recorded"]
        .isna()
        .all()
    )
    empty = plots.accuracy_curves(
        "depth", SIDES | {"recorded": DEPTHS.iloc[:0]}, titles=TITLES
    ).axes[2]
    assert len(empty.lines) == 7 and [
        label.get_text() for label in empty.get_xticklabels()
    ] == list("123456")
    plots.accuracy_curves(
        "depth", SIDES | {"recorded": DEPTHS.iloc[:0], "ours": DEPTHS.iloc[:0]}, titles=TITLES
    )


def test_differences_are_dots_with_intervals():
    first, second = plots.differences(POINTS, titles=TITLES, label="less that of DFE").axes
    (interval,) = [each for each in first.collections if hasattr(each, "get_segments")]
    assert [segment[:, 0].tolist() for segment in interval.get_segments()] == [[0.2, 2.0]] * 2
    assert second.get_xlabel() == "Rank-1 less that of DFE (points)"


def test_a_recorded_difference_without_an_interval_has_no_dot():
    lone = POINTS.assign(low=math.nan, high=math.nan)
    for data, shown in ((POINTS, 2), (lone, 0)):
        axes = plots.differences(data, titles=TITLES, label="more").axes[0]
        (dots,) = [
            each for each in axes.collections if each.get_label() == "Recorded, 95 % interval"
        ]
        assert np.isfinite(np.ma.filled(dots.get_offsets(), np.nan)[:, 0]).sum() == shown


def test_a_shared_unit_is_one_box():
    figure = plots.structures({"a": (("seu", "mfu"), True, False), "b": (("mfu",), True, True)})
    assert [len(axes.patches) for axes in figure.axes] == [1 + 2, 1]
    assert figure.drawn["shared"].tolist() == [True, False, True]


def test_contact_sheet_shows_identities_by_cameras(tmp_path):
    records = []
    for identity, camera in [(3, 0), (3, 1), (5, 0), (9, 0), (9, 1)]:
        path = tmp_path / f"{identity:04d}_c{camera + 1}.png"
        Image.fromarray(PIXELS[camera]).save(path)
        records.append((path, identity, camera))
    drawn = plots.contact_sheet(records, identities=2, tile=(64, 32)).drawn
    assert drawn.values.tolist() == [
        [i, c, f"{i:04d}_c{c + 1}.png"] for i in (3, 9) for c in (0, 1)
    ]
    drawn = plots.contact_sheet(records, identities=5, tile=(64, 32)).drawn
    assert len(drawn) == 5, "one camera has not seen one of them"


def test_pixels_of_every_kind():
    tensor = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(as_pixels(tensor), PIXELS)
    np.testing.assert_array_equal(as_pixels((tensor / 255 - 0.5) / 0.5), PIXELS)
    with pytest.raises(ValueError, match="images: expected"):
        as_pixels(PIXELS[..., 0])


def test_styles_tell_all_features_apart():
    looks = {name: tuple(sorted(look.items())) for name, look in FEATURE_STYLES.items()}
    assert list(looks) == list(FEATURE_LABELS) == list(LABELS) and len(set(looks.values())) == 7
    assert FEATURE_STYLES["cnn"]["color"] == FEATURE_STYLES["cnn_fused"]["color"]


@pytest.mark.parametrize("draw, message", [
    (lambda: plots.accuracy_curves("dim", WIDTHS | {"ours": DIMENSIONS.drop(columns="mAP")}, titles=TITLES),
     r"ours, by dim: .*missing \['mAP'\]"),
    (lambda: plots.differences(POINTS.drop(columns="low"), titles=TITLES, label=""), r"missing \['low'\]"),
    (lambda: plots.retrieved_lists(PIXELS[:2], LISTS, [[1, 0], [0, 0]], labels="AB"),
     r"right: expected .*\(2, 3\), found \(2, 2\)"),
    (lambda: plots.heat_maps(PIXELS[:2], {"a": np.zeros((3, 5, 2))}), r"maps\['a'\]"),
])  # fmt: skip
def test_clear_errors(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
