"""Who is rendered: people differ, members of a family share most of their blocks."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from fusionreid.data.synthetic.people import BLOCKS, FAMILY, SHARE, WARDROBE, Colour, Person, draw


def block(person: Person, name: str) -> tuple:
    """The block's entries that are not everybody's own: names, and measures without own changes."""
    entries = []
    for entry in BLOCKS[name]:
        value = getattr(person, entry)
        if entry not in WARDROBE["own"]:
            entries.append(value.name if isinstance(value, Colour) else value)
    return tuple(entries)


def test_people_differ():
    people = [draw(0, identity) for identity in range(1, 60)]
    assert draw(0, 7) == people[6] and draw(1, 7) != people[6] and draw(0, -7) != people[6]
    assert len(set(map(str, people))) == len(people)
    assert draw(0, -7).family == 0
    assert [person.family for person in people[: FAMILY + 1]] == [1] * FAMILY + [2]


def test_every_entry_of_a_person_is_in_one_block_or_their_own():
    entries = [entry for block in BLOCKS.values() for entry in block]
    assert len(set(entries)) == len(entries)
    own = {"woman", "grain", "grain_scale", "print_box", "seed", "family"}
    assert set(entries) | own == {entry.name for entry in fields(Person)}


def test_members_share_most_blocks_with_their_family():
    shared = []
    for first in range(1, 60 * FAMILY, FAMILY):
        head = draw(3, first)
        for identity in range(first + 1, first + FAMILY):
            member = draw(3, identity)
            assert member.woman == head.woman and member.family == head.family
            same = [
                block(member, name) == block(head, name) for name in BLOCKS if name != "silhouette"
            ]
            shared.append(np.mean(same))
            assert member.top_colour.rgb != head.top_colour.rgb  # shades are everybody's own
    # A few are the same by chance; where none differs, one is changed.
    assert np.mean(shared) == pytest.approx(SHARE, abs=0.04)


def test_the_colour_of_what_is_not_worn_is_none():
    for identity in range(1, 200):
        person = draw(0, identity)
        assert (person.looks["bag_colour"] == "none") == (person.bag == "none")
        assert (person.looks["print_colour"] == "none") == (person.print == "none")
        assert (person.looks["headwear_colour"] == "none") == (person.hair not in ("cap", "beanie"))
        assert all(isinstance(value, str) for value in person.looks.values())


def test_facts_are_one_flat_row():
    facts = draw(0, 5).facts
    assert set(draw(0, 5).looks) <= set(facts)
    assert all(isinstance(value, str | int | float) for value in facts.values())
    assert facts["top_colour_rgb"].startswith("#") and len(facts["top_colour_rgb"]) == 7


def test_nobody_is_out_of_proportion():
    people = [draw(1, identity) for identity in range(1, 400)]
    assert all(-0.1 < person.lean < 0.15 for person in people)
    assert all(0.85 < person.legs < 1.15 and 0.85 < person.width < 1.2 for person in people)
    assert all(0.02 < person.sleeves < 2.2 and 0.3 < person.length < 2.2 for person in people)


def test_streets_differ_in_their_season():
    coats = []
    for seed in range(12):
        people = [draw(seed, -number) for number in range(1, 80)]
        coats.append(np.mean([person.top == "coat" for person in people]))
    assert min(coats) < 0.03 and max(coats) > 0.06
