"""Who is rendered: the attributes that make an identity of the synthetic benchmark.

Colours are few and shared, as in a street: identities are told apart by the combination of cut, pattern, print, hair,
bag and build, not by one colour.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

_WARDROBE = json.loads(files(__package__).joinpath("wardrobe.json").read_text(encoding="utf-8"))

# Colours are sRGB, 0 to 255; the numbers of all others are how often they occur.
TOP_COLOURS = _WARDROBE["top_colours"]
BOTTOM_COLOURS = _WARDROBE["bottom_colours"]
BAG_COLOURS = _WARDROBE["bag_colours"]
SHOE_COLOURS = _WARDROBE["shoe_colours"]
HAIR_COLOURS = _WARDROBE["hair_colours"]
SKIN = _WARDROBE["skin"]
TOPS = _WARDROBE["tops"]
BOTTOMS = _WARDROBE["bottoms"]
PATTERNS = _WARDROBE["patterns"]
JACKET_PATTERNS = _WARDROBE["jacket_patterns"]
BOTTOM_SHARES = _WARDROBE["bottom_shares"]
PRINTS = _WARDROBE["prints"]
HAIR_MEN = _WARDROBE["hair_men"]
HAIR_WOMEN = _WARDROBE["hair_women"]
BAGS = _WARDROBE["bags"]


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
