"""Every figure is drawn from plain arrays, carries the numbers drawn, and is saved with its twin CSV."""

from __future__ import annotations

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fusionreid.config import FEATURES
from fusionreid.plots import curves as plots
from fusionreid.plots import diagram
from fusionreid.plots.grids import as_pixels
from fusionreid.plots.style import FEATURE_LABELS, FEATURE_STYLES

RANDOM = np.random.default_rng(0)
CURVES = {"CNN": np.linspace(0.4, 0.9, 50), "FusionReID": np.linspace(0.6, 1.0, 50)}
PIXELS = RANDOM.integers(0, 255, (6, 64, 32, 3), dtype=np.uint8)


def metrics() -> pd.DataFrame:
    rows = []
    for epoch in range(1, 5):
        terms = {f"{term}/{name}": 1 / epoch for term in ("cross_entropy", "triplet") for name in FEATURES}
        rows += [{"kind": "step", "epoch": epoch, "learning_rate": 0.1 * epoch, **terms} for _ in range(2)]
        for name in (*FEATURES, "all"):
            rows.append({"kind": "evaluation", "epoch": epoch, "feature": name, "mAP": 0.2 * epoch})
    return pd.DataFrame(rows)


def depths() -> pd.DataFrame:
    return pd.DataFrame([{"depth": depth, "feature": name, "seed": seed, "mAP": 50 + depth + seed, "rank-1": 60 + depth}
                         for depth in range(1, 7) for name in (*FEATURES, "all") for seed in (0, 1)])  # fmt: skip


def dimensions() -> pd.DataFrame:
    dims = [384, 768, 1536]
    return pd.DataFrame({"dim": dims, "mAP": [60, 61, 60.5], "rank-1": [80, 82, 81], "parameters": [1.0, 2.0, 3.0],
                         "macs": [0.1, 0.2, 0.3]})  # fmt: skip


def components(missing: bool = False) -> pd.DataFrame:
    return pd.DataFrame({"name": ["DFE", "+ LRU"], "mAP": [50, np.nan if missing else 52], "rank-1": [70, 72]})


def costs() -> pd.DataFrame:
    return pd.DataFrame({"name": "abc", "parameters": [1.0, 2, 3], "paper_parameters": [1.1, 2, 4], "macs": [1.0, 2, 3],
                         "paper_macs": [1.0, 2, 3], "misprint": [False, False, True]})  # fmt: skip


FIGURES = {
    "cmc": lambda: plots.cmc_curves(CURVES),
    "loss": lambda: plots.loss_curves(metrics()),
    "learning_rate": lambda: plots.learning_rate(metrics()),
    "map": lambda: plots.map_by_epoch(metrics(), baselines={"colour histogram": 0.2}),
    "likeness": lambda: plots.likeness(pd.DataFrame(RANDOM.random((6, 6)), list(FEATURES), list(FEATURES)).corr()),
    "depth": lambda: plots.depth_curves(depths()),
    "dimension": lambda: plots.dimension_curves(dimensions()),
    "components": lambda: plots.component_bars(components(True), components(), ours_title="o", paper_title="p"),
    "parity": lambda: plots.cost_parity(costs()),
    "architecture": plots.architecture,
    "batch": lambda: plots.batch_sheet(torch.randn(6, 3, 64, 32), torch.tensor([4, 4, 4, 7, 7, 7])),
    "retrieved": lambda: plots.retrieved_lists(PIXELS[:2], PIXELS.reshape(2, 3, 64, 32, 3), [[1, 0, 1], [0, 0, 1]]),
    "heat": lambda: plots.heat_maps(PIXELS[:2], {"a": RANDOM.random((2, 5, 2)), "b": RANDOM.random((2, 8, 4))},
                                    shared="row", gutters=(1,), labels=["x", "y"]),
    "heads": lambda: plots.attention_heads(PIXELS[0], {"SEU 1": RANDOM.random((12, 5, 2))}),
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


def test_save_takes_the_callers_numbers(tmp_path):
    figure = plots.cmc_curves(CURVES)
    plots.save(figure, "x", pd.DataFrame({"mine": [1.5]}), tmp_path)
    assert (tmp_path / "x.csv").read_text() == "mine\n1.5\n"
    del figure.drawn
    with pytest.raises(ValueError, match="numbers drawn"):
        plots.save(figure, "y", folder=tmp_path)
    assert not (tmp_path / "y.png").exists()


def test_drawn_numbers_are_those_given():
    drawn = plots.cmc_curves(CURVES, max_rank=10).drawn
    assert drawn["rank"].tolist() == list(range(1, 11))
    np.testing.assert_array_equal(drawn["FusionReID"], CURVES["FusionReID"][:10])
    assert plots.loss_curves(metrics()).drawn["triplet/cnn"].tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    heat = plots.heat_maps(PIXELS[:1], {"a": np.arange(10.0).reshape(1, 5, 2)}).drawn
    assert heat["value"].tolist() == list(range(10)) and heat["y"].max() == 4


def test_mean_and_deviation_over_seeds():
    axes = plots.depth_curves(depths()).axes[0]
    assert axes.lines[0].get_ydata()[0] == pytest.approx(51.5)
    assert len(axes.collections) == 7, "one band for each feature"
    assert len(plots.depth_curves(depths().query("seed == 0")).axes[0].collections) == 0


def test_contact_sheet_shows_identities_by_cameras(tmp_path):
    records = []
    for identity, camera in [(3, 0), (3, 1), (5, 0), (9, 0), (9, 1)]:
        path = tmp_path / f"{identity:04d}_c{camera + 1}.png"
        Image.fromarray(PIXELS[camera]).save(path)
        records.append((path, identity, camera))
    drawn = plots.contact_sheet(records, identities=2, tile=(64, 32)).drawn
    assert drawn[["identity", "camera"]].values.tolist() == [[3, 0], [3, 1], [9, 0], [9, 1]]
    assert len(plots.contact_sheet(records, identities=5).drawn) == 5


def test_pixels_of_every_kind():
    tensor = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(as_pixels(tensor), PIXELS)
    np.testing.assert_array_equal(as_pixels((tensor / 255 - 0.5) / 0.5), PIXELS)
    with pytest.raises(ValueError, match="images: expected"):
        as_pixels(PIXELS[..., 0])


def test_styles_tell_all_features_apart():
    looks = {name: tuple(sorted(style.items())) for name, style in FEATURE_STYLES.items()}
    assert list(looks) == list(FEATURE_LABELS) == [*FEATURES, "all"] and len(set(looks.values())) == 7


def test_clear_errors():
    with pytest.raises(ValueError, match=r"dimension_curves: .*missing \['macs'\]"):
        plots.dimension_curves(dimensions().drop(columns="macs"))
    with pytest.raises(ValueError, match="expected the paper's rows"):
        plots.component_bars(components()[::-1], components(), ours_title="o", paper_title="p")
    with pytest.raises(ValueError, match=r"right: expected shape \(2, 3\), found \(2, 2\)"):
        plots.retrieved_lists(PIXELS[:2], PIXELS.reshape(2, 3, 64, 32, 3), [[1, 0], [0, 0]])
    with pytest.raises(ValueError, match=r"maps\['a'\]"):
        plots.heat_maps(PIXELS[:2], {"a": np.zeros((3, 5, 2))})


def test_architecture_is_written_the_same_again(tmp_path):
    files = [tmp_path / "architecture.png", tmp_path / "architecture.csv"]
    written = []
    for _ in range(2):
        plots.save(diagram.architecture(), "architecture", folder=tmp_path)
        written.append([file.read_bytes() for file in files])
    assert written[0] == written[1] and len(pd.read_csv(files[1])) == 6
