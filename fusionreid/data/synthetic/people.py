"""Who is rendered: the attributes that make an identity of the synthetic benchmark.

Colours are few and shared, as in a street: identities are told apart by the combination of cut, pattern, print, hair,
bag and build, not by one colour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# sRGB, 0 to 255.
TOP_COLOURS = {
    "black": (30, 30, 34),
    "white": (226, 226, 222),
    "grey": (128, 130, 134),
    "navy": (36, 46, 88),
    "red": (172, 40, 44),
    "blue": (58, 104, 176),
    "green": (60, 110, 74),
    "beige": (190, 166, 128),
    "yellow": (214, 178, 62),
    "pink": (212, 138, 156),
}
BOTTOM_COLOURS = {
    "black": (32, 32, 36),
    "denim": (66, 88, 126),
    "navy": (40, 48, 78),
    "grey": (112, 114, 118),
    "khaki": (150, 132, 100),
    "white": (212, 210, 204),
}
BAG_COLOURS = {
    "black": (34, 34, 38),
    "brown": (110, 72, 44),
    "red": (160, 40, 48),
    "blue": (48, 84, 150),
    "grey": (130, 132, 136),
    "olive": (92, 96, 62),
    "tan": (176, 136, 92),
}
SHOE_COLOURS = {
    "black": (30, 30, 32),
    "white": (224, 224, 222),
    "brown": (98, 66, 44),
    "red": (150, 42, 44),
    "grey": (120, 122, 126),
}
HAIR_COLOURS = {
    "black": (26, 23, 22),
    "dark brown": (58, 40, 30),
    "brown": (98, 66, 42),
    "blond": (186, 150, 96),
    "red": (134, 66, 36),
    "grey": (150, 148, 146),
}
SKIN = ((238, 200, 172), (222, 178, 146), (198, 150, 116), (160, 112, 80), (112, 76, 54), (78, 54, 42))

TOPS = {"t-shirt": 0.28, "long sleeves": 0.2, "hoodie": 0.12, "open jacket": 0.18, "coat": 0.12, "sleeveless": 0.1}
BOTTOMS = {"trousers": 0.56, "shorts": 0.2, "skirt": 0.14, "long skirt": 0.1}
PATTERNS = {"plain": 0.42, "stripes": 0.2, "vertical stripes": 0.08, "checks": 0.15, "blocks": 0.15}
JACKET_PATTERNS = {"plain": 0.7, "checks": 0.2, "blocks": 0.1}
BOTTOM_SHARES = {"black": 0.3, "denim": 0.26, "navy": 0.12, "grey": 0.12, "khaki": 0.13, "white": 0.07}
PRINTS = ("disc", "square", "triangle", "band", "cross", "text")
HAIR_MEN = {"short": 0.5, "shaved": 0.12, "bald": 0.08, "afro": 0.08, "long": 0.06, "beanie": 0.08, "cap": 0.08}
HAIR_WOMEN = {
    "short": 0.1,
    "bob": 0.22,
    "long": 0.28,
    "ponytail": 0.18,
    "bun": 0.08,
    "afro": 0.06,
    "beanie": 0.05,
    "cap": 0.03,
}
BAGS = {"none": 0.38, "backpack": 0.28, "shoulder bag": 0.2, "handbag": 0.14}


@dataclass(frozen=True)
class Person:
    """One identity. Colours are names of the palettes above; `shape` holds anny's phenotypes, 0 to 1."""

    woman: bool
    shape: dict[str, float]
    skin: int
    hair: str
    hair_colour: str
    headwear_colour: str
    top: str
    top_colour: str
    pattern: str
    pattern_colour: str
    pattern_scale: float
    sleeves: float
    print: str
    print_colour: str
    inner_colour: str
    bottom: str
    bottom_colour: str
    length: float
    looseness: float
    side_stripe: str
    shoes: str
    bag: str
    bag_colour: str
    bag_side: str
    stride: float
    arm_out: float
    elbow: float
    lean: float
    seed: int


def _pick(rng: np.random.Generator, options, exclude: str | None = None) -> str:
    """A key of `options`: by its weight if they are numbers, else any alike."""
    names = [name for name in options if name != exclude]
    values = options.values() if isinstance(options, dict) else ()
    if any(isinstance(value, float) for value in values):
        weights = np.array([options[name] for name in names])
        return str(rng.choice(names, p=weights / weights.sum()))
    return str(names[int(rng.integers(len(names)))])


def draw(seed: int, identity: int) -> Person:
    """The identity of this number in the benchmark of this seed. Distractors have negative numbers."""
    rng = np.random.default_rng([seed, 1, abs(identity), int(identity < 0)])
    woman = bool(rng.random() < 0.5)
    top = _pick(rng, TOPS)
    bottom = _pick(rng, {"trousers": 0.62, "shorts": 0.38} if not woman else BOTTOMS)
    top_colour = _pick(rng, TOP_COLOURS)
    pattern = _pick(rng, JACKET_PATTERNS if top in ("coat", "open jacket") else PATTERNS)
    has_print = top in ("t-shirt", "long sleeves", "hoodie", "sleeveless") and rng.random() < (
        0.65 if pattern == "plain" else 0.15
    )
    hair = _pick(rng, HAIR_WOMEN if woman else HAIR_MEN)
    return Person(
        woman=woman,
        shape={
            "gender": float(rng.uniform(0.85, 1.0) if woman else rng.uniform(0.0, 0.15)),
            "age": float(rng.uniform(0.58, 0.95)),
            "height": float(rng.uniform(0.4, 0.62)),
            "weight": float(np.clip(rng.normal(0.52, 0.2), 0.15, 1.0)),
            "muscle": float(rng.uniform(0.3, 0.7)),
            "proportions": float(rng.uniform(0.35, 0.75)),
        },
        skin=int(rng.choice(len(SKIN), p=[0.22, 0.24, 0.2, 0.14, 0.12, 0.08])),
        hair=hair,
        hair_colour=_pick(
            rng, {"black": 0.32, "dark brown": 0.26, "brown": 0.16, "blond": 0.12, "red": 0.05, "grey": 0.09}
        ),
        headwear_colour=_pick(rng, TOP_COLOURS),
        top=top,
        top_colour=top_colour,
        pattern=pattern,
        pattern_colour=_pick(rng, TOP_COLOURS, exclude=top_colour),
        pattern_scale=float(rng.uniform(0.8, 1.5)),
        sleeves=float({"t-shirt": rng.uniform(0.5, 0.85), "sleeveless": 0.08}.get(top, 1.97)),
        print=_pick(rng, PRINTS) if has_print else "none",
        print_colour=_pick(rng, TOP_COLOURS, exclude=top_colour),
        inner_colour=_pick(rng, TOP_COLOURS, exclude=top_colour),
        bottom=bottom,
        bottom_colour=_pick(rng, BOTTOM_SHARES),
        length=float(
            {
                "shorts": rng.uniform(0.6, 1.0),
                "trousers": rng.uniform(1.86, 2.02),
                "skirt": rng.uniform(0.6, 1.0),
                "long skirt": rng.uniform(1.3, 1.8),
            }[bottom]
        ),
        looseness=float(rng.uniform(0.0, 1.0)),
        side_stripe=_pick(rng, TOP_COLOURS) if bottom in ("trousers", "shorts") and rng.random() < 0.15 else "none",
        shoes=_pick(rng, SHOE_COLOURS),
        bag=_pick(rng, BAGS),
        bag_colour=_pick(rng, BAG_COLOURS),
        bag_side="LR"[int(rng.integers(2))],
        stride=float(rng.uniform(0.26, 0.44)),
        arm_out=float(rng.uniform(0.1, 0.2)),
        elbow=float(rng.uniform(0.12, 0.45)),
        lean=float(rng.uniform(-0.02, 0.1)),
        seed=int(rng.integers(2**31)),
    )
