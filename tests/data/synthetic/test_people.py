"""Who is rendered: people differ, look-alikes in one cue alone."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from fusionreid.data.synthetic.people import ALIKE, CUES, draw


def test_people_differ():
    people = [draw(0, identity) for identity in range(1, 60)]
    assert draw(0, 7) == people[6] and draw(1, 7) != people[6] and draw(0, -7) != people[6]
    assert len(set(map(str, people))) == len(people)
    assert draw(0, -7).group == 0


@pytest.mark.parametrize("group", range(16))
def test_look_alikes_differ_in_their_cue_alone(group):
    fields = {
        "print": {"print", "print_colour"},
        "shoes": {"shoes"},
        "bag": {"bag", "bag_colour"},
        "hair": {"hair", "hair_colour", "headwear_colour"},
    }
    people = [asdict(draw(3, identity)) for identity in range(4 * group + 1, 4 * group + 5)]
    differing = {key for key in people[0] if len({str(person[key]) for person in people}) > 1}
    cue, kind = people[0]["cue"], people[0]["kind"]
    assert differing == fields.get(cue, {cue}) | {"value"}
    assert len({person["value"] for person in people}) == ALIKE == 4
    assert cue in CUES[kind] and kind == ("local", "global")[group % 2]


def test_the_colour_of_what_is_not_worn_is_none():
    for identity in range(1, 200):
        person = draw(0, identity)
        assert (person.looks["bag_colour"] == "none") == (person.bag == "none")
        assert (person.looks["print_colour"] == "none") == (person.print == "none")
        assert (person.looks["headwear_colour"] == "none") == (person.hair not in ("cap", "beanie"))
        assert {"seed", "group", "cue", "value"}.isdisjoint(person.looks)
