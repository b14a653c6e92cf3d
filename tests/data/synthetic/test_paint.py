"""Colours of points: noise, prints and patterns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fusionreid.data.synthetic import garments, paint
from fusionreid.data.synthetic.body import ATTRIBUTES, Surface
from fusionreid.data.synthetic.people import WARDROBE, draw


def chest(count=40):
    """Points on the front of the trunk: (N, 12) attributes."""
    x, z = np.meshgrid(np.linspace(-0.2, 0.2, count), np.linspace(0.05, 0.5, count))
    attributes = np.zeros((x.size, ATTRIBUTES), np.float32)
    columns = Surface.of(attributes)
    columns.x[:] = x.ravel()
    columns.y[:] = -0.1
    columns.z[:] = z.ravel()
    columns.torso[:] = z.ravel() / 0.55
    return attributes


def painted(person):
    attributes = chest()
    layer = np.full(len(attributes), garments.BODY)
    return paint.paint(person, layer, attributes)[0]


def test_noise_is_smooth_and_inside_0_and_1():
    x = np.linspace(0, 20, 4001)
    values = paint.noise(x, seed=3)
    assert 0 <= values.min() < 0.2 and 0.8 < values.max() <= 1
    assert np.abs(np.diff(values)).max() < 0.02
    assert not np.array_equal(values, paint.noise(x, seed=4))


def test_prints_are_everybodys_own():
    plain = replace(draw(0, 1), top="t-shirt", pattern="plain", print="none", grain=0.0)
    printed = replace(plain, print="print", seed=7)
    other = replace(printed, seed=8)
    on_chest = [
        np.abs(painted(person) - painted(plain)).max(1) > 0.02 for person in (printed, other)
    ]
    assert 0 < on_chest[0].mean() < 0.5
    assert (on_chest[0] != on_chest[1]).any()


@pytest.mark.parametrize("pattern", WARDROBE["patterns"])
def test_patterns_show_both_colours(pattern):
    person = replace(draw(0, 1), top="t-shirt", print="none", pattern=pattern, pattern_kind=1)
    person = replace(person, grain=0.0, pattern_scale=0.6, bag="none")
    first, second = paint.linear(person.top_colour), paint.linear(person.pattern_colour)
    person = replace(person, pattern_colour=person.top_colour)
    one = painted(person)
    two = painted(replace(person, pattern_colour=person.bottom_colour))
    assert (np.abs(one - two).max(1) > 1e-4).any() == (pattern != "plain")
    assert first.shape == second.shape == (3,)
