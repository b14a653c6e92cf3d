"""The colour of every visible point of a person: skin, hair, cloth with its pattern and print, bags, shoes."""

import numpy as np

from .body import COLUMN
from .garments import BAG, BODY, HAIR, HEADWEAR, HOOD, STRAP, TUBE, covered, hairline
from .people import (
    BAG_COLOURS,
    BOTTOM_COLOURS,
    HAIR_COLOURS,
    SHOE_COLOURS,
    SKIN,
    TOP_COLOURS,
    Person,
)


def linear(colour) -> np.ndarray:
    """sRGB 0 to 255 -> linear light 0 to 1."""
    return (np.asarray(colour, np.float32) / 255) ** 2.2


def noise(*coordinates: np.ndarray, seed: int = 0) -> np.ndarray:
    """Value noise in 0 to 1, smooth over unit cells, of one, two or three coordinates."""
    cells = [np.floor(c).astype(np.int64) for c in coordinates]
    parts = [c - cell for c, cell in zip(coordinates, cells, strict=True)]
    parts = [(p * p * (3 - 2 * p)).astype(np.float32) for p in parts]
    total = np.zeros(np.shape(coordinates[0]), np.float32)
    for corner in range(2 ** len(cells)):
        key = np.full(total.shape, seed * 1013 + 1, np.int64)
        weight = np.ones_like(total)
        for axis, (cell, part) in enumerate(zip(cells, parts, strict=True)):
            bit = corner >> axis & 1
            key = key * 7919 + (cell + bit) * (374761393, 668265263, 2147483647)[axis]
            weight = weight * (part if bit else 1 - part)
        key = (key ^ (key >> 13)) * 1274126177 & 0xFFFFFFFF
        key = (key ^ (key >> 16)) * 2246822519 & 0xFFFFFFFF
        total += weight * ((key >> 8) & 0xFFFF).astype(np.float32) / 65535
    return total


def _pattern(person: Person, u, v, torso, arm) -> np.ndarray:
    """Where the second colour of the top's pattern is: (N,) booleans; u runs around, v up, metres."""
    width = 0.055 * person.pattern_scale
    upright, level = u % (2 * width) < width, v % (2 * width) < width
    blocks = [arm, torso > 0.62, torso < 0.36, u > 0][person.seed % 4]
    kinds = {
        "stripes": level,
        "vertical stripes": upright,
        "checks": level ^ upright,
        "blocks": blocks,
    }
    return kinds.get(person.pattern, np.zeros(len(u), bool))


def _print(person: Person, x, torso, y) -> np.ndarray:
    """Where the front's print is: (N,) booleans."""
    s, t = x / 0.14, (torso - 0.6) / 0.27
    inside = {
        "disc": s * s + t * t < 1,
        "square": (np.abs(s) < 0.9) & (np.abs(t) < 0.9),
        "triangle": (np.abs(s) < (1 - t) * 0.55) & (t > -1) & (t < 1),
        "band": (np.abs(t) < 0.5) & (np.abs(s) < 1.6),
        "cross": ((np.abs(s) < 0.35) | (np.abs(t) < 0.35)) & (np.abs(s) < 1) & (np.abs(t) < 1),
        "text": (np.abs(s) < 1.2) & (np.abs(t) < 0.9) & (np.abs((t * 1.4) % 1 - 0.5) < 0.28),
    }.get(person.print, np.zeros(len(x), bool))
    return inside & (y < -0.01)


def _top(person: Person, a, u) -> np.ndarray:
    """The colour of the top, (N, 3)."""
    x, y, torso = a[:, COLUMN["x"]], a[:, COLUMN["y"]], a[:, COLUMN["torso"]]
    arm = a[:, COLUMN["is_arm"]] > 0.5
    v = np.where(arm, -0.29 * a[:, COLUMN["arm"]], a[:, COLUMN["z"]])
    colour = np.broadcast_to(linear(TOP_COLOURS[person.top_colour]), (len(a), 3)).copy()
    colour[_pattern(person, u, v, torso, arm)] = linear(TOP_COLOURS[person.pattern_colour])
    colour[_print(person, x, torso, y) & ~arm] = linear(TOP_COLOURS[person.print_colour])
    front, inner = (y < 0) & ~arm, linear(TOP_COLOURS[person.inner_colour])
    if person.top == "open jacket":
        colour[front & (np.abs(x) < 0.055 - 0.02 * torso)] = inner
    if person.top == "coat":
        opening = front & (np.abs(x) < np.clip((torso - 0.55) * 0.15, 0.004, 1))
        colour[opening] = np.where(torso[opening, None] > 0.58, inner, 0.5 * colour[opening])
    return colour


def _body(person: Person, a: np.ndarray) -> np.ndarray:
    """The colour of points on the body's own surface, (N, 3)."""
    column = {name: a[:, i] for name, i in COLUMN.items()}
    x, y, z, torso = column["x"], column["y"], column["z"], column["torso"]
    skin = linear(SKIN[person.skin])
    colour = np.broadcast_to(skin, (len(a), 3)).copy()
    head = column["is_head"] > 0.5
    hair = linear(HAIR_COLOURS[person.hair_colour])
    dark = np.minimum(hair, skin * 0.5)
    face = head & (y < -0.09)
    colour[face & (np.abs(z + 0.03) < 0.009) & (np.abs(x) < 0.024)] = skin * [0.75, 0.5, 0.5]
    colour[face & (np.abs(z - 0.062) < 0.006) & (np.abs(np.abs(x) - 0.033) < 0.019)] = dark
    colour[face & (np.abs(z - 0.04) < 0.007) & (np.abs(np.abs(x) - 0.032) < 0.014)] = skin * 0.35
    colour[column["is_eye"] > 0.5] = 0.06
    edge = hairline(y, z) + 0.012 * (noise(x * 90, y * 90, z * 30) - 0.5)
    if person.hair in ("beanie", "cap"):
        colour[head & (edge > -0.025) & (y > -0.02)] = hair
        colour[head & (hairline(y, z) > -0.004)] = linear(TOP_COLOURS[person.headwear_colour])
    elif person.hair == "shaved":
        colour[head & (edge > 0)] = 0.45 * skin + 0.4 * hair
    elif person.hair != "bald":
        streaks = 0.65 + 0.7 * noise(np.arctan2(x, y + 0.02) * 14, z * 25, seed=3)
        colour = np.where((head & (edge > 0))[:, None], hair * streaks[:, None], colour)
    top, bottom = covered(person, a)
    leg = column["is_leg"] > 0.5
    cloth = linear(BOTTOM_COLOURS[person.bottom_colour])
    colour[bottom] = cloth
    if person.bottom_colour == "denim" and person.bottom in ("trousers", "shorts"):
        # Worn lighter in front of the thighs.
        worn = 1 + 0.5 * np.exp(-(((column["leg"] - 0.5) / 0.35) ** 2)) * (y < 0)
        colour[bottom] = cloth * worn[bottom, None]
    if person.side_stripe != "none":
        # The outer side: x beyond the middle of the leg, y about the middle.
        colour[bottom & leg & (np.abs(y) < 0.022) & (np.abs(x) > 0.12)] = linear(
            TOP_COLOURS[person.side_stripe]
        )
    arm = column["is_arm"] > 0.5
    u = np.where(arm, y, np.arctan2(x, -y) * 0.16)
    colour[top] = _top(person, a[top], u[top])
    colour[bottom & (np.abs(torso - 0.3) < 0.02) & ~leg] = 0.05  # a belt
    colour[(column["leg"] > 1.93) & leg & ~bottom] = linear(SHOE_COLOURS[person.shoes])
    trunk = ~arm & ~head
    if person.bag == "backpack":
        straps = trunk & (np.abs(np.abs(x) - 0.105) < 0.021) & (torso > 0.45) & (y < 0.06)
    if person.bag == "shoulder bag":
        side = 1 if person.bag_side == "L" else -1
        straps = (
            trunk
            & (np.abs(x - side * (0.17 - 0.29 * torso)) < 0.024)
            & (torso > -0.1)
            & (torso < 1.05)
        )
    if person.bag in ("backpack", "shoulder bag"):
        colour[straps] = linear(BAG_COLOURS[person.bag_colour]) * 0.8
    return colour


def paint(person: Person, layer: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linear albedo (N, 3) of points of a person, on layers (N,) with attributes (N, 12), and folds of cloth (N,)."""
    colour = np.zeros((len(a), 3), np.float32)
    body = layer == BODY
    colour[body] = _body(person, a[body])
    top, bottom = covered(person, a)
    folds = np.where(body & (top | bottom), 1.0, 0.0) + (layer == TUBE)
    hair = layer == HAIR
    streaks = 0.6 + 0.8 * noise(a[hair, 0] * 160 + a[hair, 1] * 90, a[hair, 2] * 12, seed=5)
    colour[hair] = linear(HAIR_COLOURS[person.hair_colour]) * streaks[:, None]
    colour[layer == HEADWEAR] = linear(TOP_COLOURS[person.headwear_colour]) * 0.9
    colour[layer == HOOD] = linear(TOP_COLOURS[person.top_colour])
    bag = layer == BAG
    x, z = a[bag, 0], a[bag, 2]
    parts = (
        np.abs(z - 0.11) < 0.006,
        np.abs(z + 0.02) < 0.008,
        (z < -0.02) & (z > -0.14) & (np.abs(x) < 0.11),
    )
    shade = np.select(parts, (0.4, 0.35, 0.75), 1.0)
    colour[bag] = linear(BAG_COLOURS[person.bag_colour]) * shade[:, None]
    colour[layer == STRAP] = linear(BAG_COLOURS[person.bag_colour]) * 0.7
    hanging = layer == TUBE
    colour[hanging] = linear(BOTTOM_COLOURS[person.bottom_colour])
    if person.top == "coat":
        colour[hanging] = _top(person, a[hanging], np.arctan2(a[hanging, 0], -a[hanging, 1]) * 0.16)
    elif person.seed % 3 == 0:
        colour[hanging & (a[:, COLUMN["z"]] % 0.16 < 0.05)] = linear(
            TOP_COLOURS[person.pattern_colour]
        )
    return colour, folds
