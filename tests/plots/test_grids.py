"""Grids hold the images given, each in its place, with frames, captions and maps over them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from fusionreid import plots
from fusionreid.data import Record
from fusionreid.plots.grids import as_pixels, overlay

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 255, (6, 64, 32, 3), dtype=np.uint8)
LISTS = PIXELS.reshape(2, 3, 64, 32, 3)
RIGHT = [[1, 0, 1], [0, 0, 1]]
GAP = 2  # pixels between images that are 32 wide
MAPS = RANDOM.random((2, 5, 2))


@pytest.fixture
def records(tmp_path):
    """Two identities that two cameras saw, and one that one camera saw."""
    records = []
    for identity, camera in [(3, 0), (3, 1), (5, 0), (9, 0), (9, 1)]:
        path = tmp_path / f"{identity:04d}_c{camera + 1}.png"
        Image.fromarray(PIXELS[camera]).save(path)
        records.append(Record(path, identity, camera))
    return records


FIGURES = {
    "contact_sheet": lambda records: plots.contact_sheet(records, identities=5, tile=(64, 32)),
    "batch_sheet": lambda _: plots.batch_sheet(torch.randn(6, 3, 64, 32), [4, 4, 4, 7, 7, 7]),
    "retrieved_lists": lambda _: plots.retrieved_lists(
        PIXELS[:2], LISTS, RIGHT, labels=["AP 50 %", "AP 9 %"]
    ),
    "heat_maps": lambda _: plots.heat_maps(
        PIXELS[:2],
        {"a": MAPS, "b\nb": RANDOM.random((2, 8, 4))},
        gutters=(1,),
        labels=["x", "y"],
        scores={"a": [0.5, 1.25], "b\nb": [0, 1]},
    ),
    "attention_heads": lambda _: plots.attention_heads(
        PIXELS[0], {"SEU 1\nCNN": RANDOM.random((12, 5, 2))}
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_its_twin(name, records, saved_twin):
    assert not saved_twin(FIGURES[name](records)).empty


def test_every_public_function_is_drawn_here(public_functions):
    assert public_functions("grids") <= set(FIGURES)


def canvas(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_a_contact_sheet_shows_identities_by_cameras(records):
    figure = plots.contact_sheet(records, identities=2, tile=(64, 32))
    expected = [[3, 0, "0003_c1.png"], [3, 1, "0003_c2.png"]]
    expected += [[9, 0, "0009_c1.png"], [9, 1, "0009_c2.png"]]
    assert figure.drawn.values.tolist() == expected, "not the identities that most cameras saw"
    pixels = canvas(figure)
    np.testing.assert_array_equal(pixels[:64, :32], PIXELS[0])
    np.testing.assert_array_equal(pixels[64 + GAP :, 32 + GAP :], PIXELS[1])


def test_a_contact_sheet_has_a_gap_where_a_camera_did_not_see_someone(records):
    figure = plots.contact_sheet(records, identities=5, tile=(64, 32))
    assert len(figure.drawn) == 5
    assert (canvas(figure)[64 + GAP : 128 + GAP, 32 + GAP :] == 255).all()


def test_a_batch_has_a_row_for_each_identity():
    figure = plots.batch_sheet(PIXELS[:5], ["a", "a", "b", "b", "b"])
    assert figure.drawn["row"].tolist() == [0, 0, 1, 1, 1]
    assert figure.drawn["column"].tolist() == [0, 1, 0, 1, 2]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]
    np.testing.assert_array_equal(canvas(figure)[64 + GAP :, 2 * (32 + GAP) :], PIXELS[4])
    assert (canvas(figure)[:64, 2 * (32 + GAP) :] == 255).all()


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_rows_and_columns_of_a_sheet_say_what_they_are(records):
    people = plots.contact_sheet(records, identities=2, tile=(64, 32)).axes[0]
    assert labels(people.yaxis) == ["person 3", "person 9"]
    batch = plots.batch_sheet(PIXELS[:4], ["a", "a", "b", "b"], columns=["before", "after"]).axes[0]
    assert labels(batch.xaxis) == ["before", "after"]


def test_a_list_says_which_images_are_right():
    figure = plots.retrieved_lists(PIXELS[:2], LISTS, RIGHT, labels=["A", "B"])
    assert figure.drawn["rank"].tolist() == [1, 2, 3] * 2
    assert figure.drawn["query"].tolist() == ["A"] * 3 + ["B"] * 3
    assert figure.drawn["right"].tolist() == [True, False, True, False, False, True]
    assert texts(figure) == ["✓", "✗", "✓", "✗", "✗", "✓"]
    colours = [frame.get_edgecolor() for frame in figure.axes[0].patches]
    assert len(set(colours)) == 2
    assert [colour == colours[0] for colour in colours] == figure.drawn["right"].tolist()


def test_a_list_has_its_similarities_below():
    similarities = [[0.9, 0.8, 0.7], [0.6, 0.5, 0.4321]]
    figure = plots.retrieved_lists(
        PIXELS[:2], LISTS, RIGHT, labels=["A", "B"], similarities=similarities
    )
    captions = [text for text in texts(figure) if text not in "✓✗"]
    assert captions == ["0.900", "0.800", "0.700", "0.600", "0.500", "0.432"]


def test_numbers_of_a_map_are_its_values():
    drawn = plots.heat_maps(PIXELS[:1], {"a": np.arange(10.0).reshape(1, 5, 2)}).drawn
    assert drawn["value"].tolist() == list(range(10))
    assert drawn["y"].max() == 4 and drawn["x"].max() == 1
    assert list(drawn) == ["image", "map", "y", "x", "value"]


def test_a_map_is_laid_over_its_image():
    maps = RANDOM.random((2, 5, 2))
    pixels = canvas(plots.heat_maps(PIXELS[:2], {"a": maps}))
    np.testing.assert_array_equal(pixels[64 + GAP :, :32], PIXELS[1])
    np.testing.assert_array_equal(pixels[64 + GAP :, 32 + GAP :], overlay(PIXELS[1], maps[1]))


def test_maps_of_different_sizes_stand_in_one_column():
    maps = {"a": [RANDOM.random((5, 2)), RANDOM.random((8, 4))]}
    assert len(plots.heat_maps(PIXELS[:2], maps).drawn) == 5 * 2 + 8 * 4


def test_a_score_stands_under_its_map():
    figure = plots.heat_maps(PIXELS[:2], {"a": MAPS}, scores={"a": [0.5, 1.25]})
    places = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    assert list(places) == ["0.50", "1.25"]
    assert places["0.50"][1] < places["1.25"][1]
    assert figure.drawn.groupby("image")["score"].first().tolist() == [0.5, 1.25]


def test_a_head_has_its_score():
    figure = plots.attention_heads(PIXELS[0], {"a\nb": MAPS}, {"a\nb": [0.5, 1.25]})
    assert texts(figure) == ["0.50", "1.25"]
    assert list(figure.drawn) == ["image", "map", "score", "y", "x", "value"]
    assert set(figure.drawn["image"]) == {"a b"}
    scores = figure.drawn.groupby("map")["score"].first()
    assert scores.to_dict() == {"head 1": 0.5, "head 2": 1.25}
    assert "score" not in plots.attention_heads(PIXELS[0], {"a": MAPS}).drawn


def test_a_row_of_heads_is_a_unit():
    maps = {"CNN": RANDOM.random((3, 5, 2)), "Transformer": RANDOM.random((3, 8, 4))}
    figure = plots.attention_heads(PIXELS[0], maps)
    last = figure.drawn.query("image == 'Transformer' and map == 'head 3'")["value"]
    np.testing.assert_array_equal(last, maps["Transformer"][2].ravel())
    columns = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert columns == ["image", "head\n1", "head\n2", "head\n3"]
    np.testing.assert_array_equal(canvas(figure)[-64:, :32], PIXELS[0])


def test_all_maps_share_a_scale_in_times_their_mean():
    """Seven times the weights are the same map; a map that is nearly even looks even."""
    even = np.ones_like(MAPS[0])
    even[0, 0] = 1.05
    figure = plots.attention_heads(PIXELS[0], {"a": np.stack([MAPS[0], 7 * MAPS[0], even])})
    begin = 32 + GAP + 3 * GAP  # behind the image, and a gutter
    pixels = canvas(figure)[:64]
    first, second, third = (
        pixels[:, left : left + 32].astype(int)
        for left in (begin, begin + 32 + GAP, begin + 2 * (32 + GAP))
    )
    np.testing.assert_array_equal(first, second)
    flat = overlay(PIXELS[0], np.ones_like(even)).astype(int)
    assert abs(third - flat).max() < 12 < abs(first - flat).max()


def test_a_column_has_a_map_for_each_image():
    for count in (1, 3):
        with pytest.raises(ValueError, match="argument 2 is"):
            plots.heat_maps(PIXELS[:2], {"a": np.zeros((count, 5, 2))})
    plt.close("all")


def test_an_overlay_goes_from_grey_to_bright():
    white = np.full((64, 32, 3), 255, np.uint8)
    pixels = overlay(white, np.linspace(0, 1, 8).reshape(8, 1)).astype(int)
    assert pixels.shape == white.shape
    assert (pixels[0, 0] > 170).all(), "lowest: the image is seen through"
    red, green, blue = pixels[-1, 0]
    assert min(red, green) > blue + 30, "highest: yellow"
    flat = overlay(white, np.ones((5, 2)))
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1, "a constant map has one colour"


def test_pixels_of_every_kind():
    tensor = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(as_pixels(tensor), PIXELS)
    np.testing.assert_array_equal(as_pixels(((tensor / 255) - 0.5) / 0.5), PIXELS)
    np.testing.assert_array_equal(as_pixels(tensor.float().requires_grad_() * 0)[0, 0, 0], 128)
    with pytest.raises(ValueError, match="images: expected"):
        as_pixels(PIXELS[..., 0])
