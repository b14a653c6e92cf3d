"""The people of the probe: each differs from the base in one cue, by a known step."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pandas as pd
import pytest

from fusionreid.data.datasets import open_probe
from fusionreid.data.synthetic import build as synthetic
from fusionreid.data.synthetic import pairs
from fusionreid.data.synthetic.build import SIZES, plan
from fusionreid.data.synthetic.people import BLOCKS, WARDROBE
from fusionreid.data.truth import attributes

GROUPS = 3 * len(pairs.CUES)
KINDS = {"bag": "bag", "hair": "hair", "print": "print_box"}  # what changes in the third step


def group_of(group: int):
    """The four people of a group, and the group's cue."""
    first = pairs.FIRST + 4 * group
    people = [pairs.draw_alike(2, first + strength) for strength in range(4)]
    return people, pairs.CUES[group % len(pairs.CUES)]


@pytest.mark.parametrize("group", range(GROUPS))
def test_look_alikes_differ_in_one_cue(group):
    (base, *others), cue = group_of(group)
    for strength, person in enumerate(others, start=1):
        differs = {
            entry.name
            for entry in fields(base)
            if getattr(base, entry.name) != getattr(person, entry.name)
        }
        if cue in pairs.LOCAL:
            kind = {KINDS[cue]} if strength == 3 and cue in KINDS else set()
            assert differs == {pairs.LOCAL[cue]} | kind
        else:
            assert differs == set(BLOCKS[cue])


@pytest.mark.parametrize("group", range(GROUPS))
def test_steps_grow_evenly(group):
    (base, *others), cue = group_of(group)
    for strength, person in enumerate(others, start=1):
        if cue in pairs.LOCAL:
            colours = getattr(base, pairs.LOCAL[cue]).rgb, getattr(person, pairs.LOCAL[cue]).rgb
            assert np.linalg.norm(np.subtract(*colours)) == pytest.approx(45 * strength, abs=1)
            continue
        for name in BLOCKS[cue]:
            _, spread, low, high = WARDROBE["measures"][name]
            step = abs(getattr(person, name) - getattr(base, name)) / spread
            assert step == pytest.approx(strength)
            assert low <= getattr(person, name) <= high


def test_facts_name_the_cue_and_its_kind():
    first = pairs.FIRST + 4 * 4
    assert pairs.facts(first + 2) == {"cue": "build", "kind": "global", "strength": 2}
    assert pairs.facts(pairs.FIRST) == {"cue": "print", "kind": "local", "strength": 0}
    assert pairs.base_of(first + 3) == first
    assert not pairs.is_of_probe(2480) and not pairs.is_of_probe(-7)


@pytest.mark.parametrize("name", ["probe", "probe-smoke"])
def test_plan(name):
    shots = plan(SIZES[name], 0)
    table = pd.DataFrame(shots)
    table["folder"] = [shot.folder for shot in shots]
    table["base"] = table["identity"].map(pairs.base_of)
    assert table["path"].is_unique and (table["identity"] >= pairs.FIRST).all()
    assert table["base"].nunique() == 8 * SIZES[name].bases
    assert (table.groupby(["identity", "folder"]).size() == 2).all()
    # The four see one camera each as query, and another one as gallery.
    cameras = table.groupby(["base", "folder"])["camera"].unique().unstack()
    assert cameras.map(len).eq(1).all(axis=None)
    assert (cameras["query"].map(max) != cameras["bounding_box_test"].map(max)).all()


def test_a_set_without_training_images_is_read(tmp_path, monkeypatch):
    pytest.importorskip("anny")
    monkeypatch.setattr(synthetic.pairs, "CUES", ("print",))
    dataset = open_probe(tmp_path, 1, "probe-smoke")
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (0, 8, 8)
    assert dataset.version.startswith("probe-smoke-1, v")
    table = attributes([*dataset.query, *dataset.gallery])
    assert set(table["cue"]) == {"print"} and set(table["group"]) == {1}
    assert sorted(table["strength"].unique()) == [0, 1, 2, 3]
    assert table["yaw"].abs().max() < 90  # a print is on the chest
    # Four poses, in each of them all four people, of whom equally much is seen.
    poses = table.groupby(["camera", "yaw", "phase", "occluder", "visible"]).size()
    assert poses.tolist() == [4, 4, 4, 4]
    assert (table.groupby("strength")["print_colour_rgb"].nunique() == 1).all()
