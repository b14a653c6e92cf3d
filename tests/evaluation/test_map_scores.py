"""Maps are scored as a slow loop over the resized map scores them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fusionreid.config import PAPER, PROFILES
from fusionreid.data.datasets import open_dataset
from fusionreid.data.truth import has_truth, masks
from fusionreid.evaluation import explain, map_scores
from fusionreid.evaluation.map_scores import attention_scores, gradcam_scores, score
from fusionreid.models.fusionreid import build_model

SIZE = PROFILES["smoke"].sizes[256, 128]  # (64, 32)
MEASURES = ["energy", "peak", "breadth", "cover"]


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """Five training and five test people in Market-1501's layout, each a rectangle on noise, with
    masks.
    """
    folder, random = tmp_path_factory.mktemp("market"), np.random.default_rng(0)
    files = []
    for split, people in {
        "bounding_box_train": range(1, 6),
        "query": range(6, 11),
        "bounding_box_test": range(6, 11),
    }.items():
        for identity in people:
            camera = 2 if split == "query" else 1
            file = f"{split}/{identity:04d}_c{camera}s1_000001_00.jpg"
            mask = np.zeros(SIZE, np.uint8)
            mask[8:56, 2 * identity : 2 * identity + 8] = 255
            pixels = np.where(
                mask[..., None] > 0, random.integers(0, 255, 3), random.integers(0, 255, (*SIZE, 3))
            )
            for path, image in ((file, pixels.astype(np.uint8)), (f"masks/{file[:-4]}.png", mask)):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(folder / path)
            files.append(file)
    dataset = open_dataset("synthetic", folder)
    assert not has_truth(dataset)
    (folder / "attributes.csv").write_text("\n".join(["file", *files]))
    assert has_truth(dataset)
    return dataset


@pytest.fixture(scope="module")
def trio():
    """FusionReID and its two branches alone, untrained."""
    torch.manual_seed(0)
    configs = PAPER, replace(PAPER, transformer=None), replace(PAPER, cnn=None)
    return [
        build_model(PROFILES["smoke"].scale(config), num_classes=5, num_cameras=2)
        for config in configs
    ]


def slow_scores(heat: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Energy and peak of one map, pixel by pixel of the map resized bilinearly."""
    (rows, columns), (height, width) = heat.shape, mask.shape
    inside = everything = 0.0
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * rows / height - 0.5, 0), rows - 1)
            u = min(max((x + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = int(v), int(u)
            below, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            upper = heat[top, left] * (1 - u + left) + heat[top, right] * (u - left)
            lower = heat[below, left] * (1 - u + left) + heat[below, right] * (u - left)
            value = upper * (1 - v + top) + lower * (v - top)
            everything += value
            inside += value * mask[y, x]
    row, column = max(
        ((r, c) for r in range(rows) for c in range(columns)), key=lambda place: heat[place]
    )
    peak = mask[int((row + 0.5) * height / rows), int((column + 0.5) * width / columns)]
    return inside / everything / mask.mean(), float(peak)


@pytest.mark.parametrize("grid", [(4, 2), (5, 3), (10, 5), (16, 8)])
def test_scores_are_those_of_a_slow_loop(grid):
    random = np.random.default_rng(1)
    heat, people = (
        random.random((6, *grid)).astype(np.float32) ** 3,
        random.random((6, 16, 8)) < 0.4,
    )
    found = score(torch.from_numpy(heat), people)
    expected = np.array([slow_scores(*each) for each in zip(heat, people, strict=True)])
    np.testing.assert_allclose(found["energy"], expected[:, 0], rtol=1e-4)
    np.testing.assert_array_equal(found["peak"], expected[:, 1])
    assert 0 < expected[:, 1].sum() < 6, "the peaks of these maps lie on and off the person"


def test_breadth_and_cover_are_those_of_the_pixels_when_no_cell_is_resized():
    random = np.random.default_rng(2)
    heat, mask = random.random((3, 8, 4)), random.random((3, 8, 4)) < 0.5
    found = score(torch.from_numpy(heat), mask)
    for n in range(3):
        on = heat[n][mask[n]]
        assert found["breadth"][n] == pytest.approx(
            heat[n].sum() ** 2 / (heat[n] ** 2).mean() / 32**2
        )
        assert found["cover"][n] == pytest.approx(on.sum() ** 2 / (on**2).sum() / on.size)


def test_made_up_maps():
    mask = np.zeros((2, 32, 16), bool)
    mask[:, 8:24, 4:8] = True  # an eighth of the image
    uniform = score(torch.ones(2, 8, 4), mask)
    for name in ("energy", "breadth", "cover"):
        np.testing.assert_allclose(uniform[name], 1, rtol=1e-5)
    on_the_person = score(torch.from_numpy(mask).float(), mask)
    np.testing.assert_allclose(on_the_person["energy"], 8)
    np.testing.assert_allclose(on_the_person["breadth"], 1 / 8)
    np.testing.assert_array_equal(on_the_person["peak"], 1)
    beside = score(torch.from_numpy(~mask).float(), mask)
    assert (beside["energy"] == 0).all() and (beside["peak"] == 0).all()
    heads = score(torch.stack([torch.ones(2, 32, 16), torch.from_numpy(mask).float()], dim=1), mask)
    np.testing.assert_allclose(heads["energy"], [[1, 8], [1, 8]], rtol=1e-5)


def test_what_cannot_be_scored_is_nan_and_wrong_shapes_are_errors():
    mask = np.ones((3, 8, 4), bool)
    mask[1] = False
    maps = torch.ones(3, 4, 2)
    maps[2] = 0
    found = score(maps, mask)
    assert all(np.isnan(values[2]) for values in found.values())
    assert (
        np.isfinite(found["energy"]).tolist()
        == np.isfinite(found["peak"]).tolist()
        == [True, False, False]
    )
    with pytest.raises(ValueError, match="expected maps"):
        score(torch.ones(3, 4, 2), mask[:2])


def test_every_map_of_fig_7_is_scored(market, trio, monkeypatch):
    queries, seconds = explain.pairs(market, 9)
    table = gradcam_scores(trio, queries, seconds)
    assert len(table) == 10 * 5 and (table["target"] == "similarity").all()
    images, cameras = explain.model_inputs(trio[0], queries)
    references, reference_cameras = explain.model_inputs(trio[0], seconds)
    targets = partial(explain.similarity_targets, references=references, cameras=reference_cameras)
    maps = explain.gradcam_maps(trio, images, targets, cameras)
    for (branch, stage), values in maps.items():
        found = table[(table["branch"] == branch) & (table["stage"] == stage)]
        assert found["person"].tolist() == list(range(5))
        for name, expected in score(values, masks(queries, SIZE)).items():
            np.testing.assert_allclose(found[name], expected, rtol=1e-5)
        shifted = np.stack(
            [score(values[[n]], masks([queries[n - 1]], SIZE))["energy"][0] for n in range(5)]
        )
        np.testing.assert_allclose(found["other"], shifted, rtol=1e-5)
    finer = [max(sides) for sides in zip(*trio[0].grids.values(), strict=True)]
    alone = []
    for branch in ("cnn", "transformer"):
        values = maps[branch, "alone"][:, None]
        alone.append(F.interpolate(values, finer, mode="bilinear").flatten(1).numpy())
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(*alone, strict=True)]
    np.testing.assert_allclose(table.query("stage == 'alone'")["overlap"], expected * 2, atol=1e-4)
    monkeypatch.setattr(map_scores, "BATCH", 2)
    again = gradcam_scores(trio, queries, seconds).sort_values(["branch", "stage", "person"])
    whole = table.sort_values(["branch", "stage", "person"])
    np.testing.assert_allclose(
        again[MEASURES + ["overlap"]], whole[MEASURES + ["overlap"]], rtol=1e-3, atol=1e-4
    )


def test_training_people_are_scored_by_their_class(market, trio):
    people = market.train[1:4]
    table = gradcam_scores(trio, people)
    assert len(table) == 30 and (table["target"] == "class score").all()
    images, cameras = explain.model_inputs(trio[0], people)
    targets = partial(explain.class_targets, identities=[record.identity for record in people])
    maps = explain.gradcam_maps(trio, images, targets, cameras)
    expected = score(maps["cnn", "after LRU"], masks(people, SIZE))["energy"]
    np.testing.assert_allclose(
        table.query("branch == 'cnn' and stage == 'after LRU'")["energy"], expected, rtol=1e-5
    )


def test_every_head_is_scored(market, trio):
    table = attention_scores(trio[0].train(), market.query)
    assert all(module.training for module in trio[0].modules()), "the model is left as it was"
    assert len(table) == 5 * 8 * (trio[0].config.fusion.heads + 1)
    images, cameras = explain.model_inputs(trio[0], market.query)
    with explain.evaluating(trio[0]), torch.no_grad(), explain.record_attention(trio[0]) as weights:
        trio[0].embed(images, cameras)
    for (layer, unit, branch), values in weights.items():
        found = table[
            (table["layer"] == layer) & (table["unit"] == unit) & (table["branch"] == branch)
        ]
        for head, each in ((3, values[:, 2]), ("mean", values.mean(dim=1))):
            row = found[found["head"] == head]
            of_people = masks(market.query, SIZE)
            for name, person in {"energy": of_people, "other": np.roll(of_people, 1, 0)}.items():
                np.testing.assert_allclose(row[name], score(each, person)["energy"], rtol=1e-5)
            np.testing.assert_allclose(row["highest"], each.amax(dim=(1, 2)), rtol=1e-6)
