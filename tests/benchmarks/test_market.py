"""`make market`: a small set in Market-1501's layout is checked, estimated, trained, reported."""

from __future__ import annotations

import market
import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def root(tmp_path):
    """Coloured people: six to train on, four to find, each seen twice by three cameras."""
    random = np.random.default_rng(0)
    for identity in range(1, 11):
        colour = random.integers(20, 230, 3)
        for camera in (1, 2, 3):
            for index in (0, 1):
                test = ("query", "bounding_box_test")[index]
                folder = (
                    tmp_path
                    / "data"
                    / "market1501"
                    / ("bounding_box_train" if identity < 7 else test)
                )
                folder.mkdir(parents=True, exist_ok=True)
                pixels = random.normal(colour, 40, (64, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(
                    folder / f"{identity:04d}_c{camera}s1_{index:06d}_00.jpg"
                )
    return tmp_path / "data"


@pytest.mark.filterwarnings("ignore:.*Is the set complete")
@pytest.mark.slow
def test_a_set_is_estimated_trained_and_reported(root, tmp_path, capsys, full_disk):
    where = ["--root", str(root), "--runs-root", str(tmp_path / "runs"), "--profile", "smoke"]
    arguments = [*where, "--experiments", "table5"]
    assert market.main([*arguments, "--estimate"]) == 0
    said = capsys.readouterr().out
    assert "751" in said and "Not as published" in said  # beside the published numbers
    assert "Estimate from 10 steps" in said and "2 runs to train" in said
    assert not list((tmp_path / "runs").glob("*/result.json"))

    assert market.main(arguments) == 0
    folder = tmp_path / "runs" / "report-smoke-market1501"
    text = (folder / "report.md").read_text()
    assert {path.name for path in folder.glob("*.png")} == {"cmc.png", "table5.png"}
    for part in (
        "k-reciprocal re-ranking",
        "Own run, Market1501, smoke",
        "One run decides none of them",
        "GAP",
    ):
        assert part in text, part
    assert "not run" not in text.split("## table5")[1]

    capsys.readouterr()
    with full_disk(1000):
        assert market.main(arguments) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith(
        "market: [Errno 27] cannot write: File too large; what stood there before is untouched"
    )
    assert f"With space, the same command goes on: '{folder}" in said
    assert (folder / "report.md").read_text() == text and not list(folder.glob(".*"))
    assert (
        market.main(arguments) == 0 and "Everything was trained before." in capsys.readouterr().out
    )


def test_what_is_missing_is_said(tmp_path, capsys):
    assert market.main(["--root", str(tmp_path), "--dataset", "msmt17"]) == 2
    said = capsys.readouterr().err
    assert "msmt17: no folder of it" in said and str(tmp_path) in said
