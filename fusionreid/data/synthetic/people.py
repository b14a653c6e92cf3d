"""Who is rendered: the attributes that make an identity of the synthetic benchmark.

Identities come in families of look-alikes. A family has one member out of the street. All others
share most of their blocks of attributes with it (build, hair, top, shoes, ...) and take each other
block from a stranger of the same gender. So likeness is a continuum, as on a street: of two members
some differ in one thing, others in many. Shades of colour, prints and measures are everybody's own.
"""

import json
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from typing import NamedTuple

import numpy as np

WARDROBE = json.loads(files(__package__).joinpath("wardrobe.json").read_text(encoding="utf-8"))
FAMILY = 16  # identities in a family
SHARE = 0.85  # how likely a member has a block in common with it; at least one differs
# What is taken together from a stranger.
BLOCKS = {
    "build": ("weight", "muscle", "width"),
    "height": ("stature", "legs"),
    "silhouette": ("looseness",),
    "gait": ("stride", "arm_out", "elbow", "lean"),
    "body": ("age", "proportions", "skin"),
    "hair": ("hair", "hair_colour", "headwear_colour", "hair_volume"),
    "top": (
        "top",
        "top_colour",
        "inner_colour",
        "pattern",
        "pattern_colour",
        "pattern_scale",
        "pattern_kind",
        "sleeves",
        "hem",
        "print",
        "print_colour",
    ),
    "bottom": ("bottom", "bottom_colour", "length", "side_stripe", "stripe_colour"),
    "shoes": ("shoes",),
    "bag": ("bag", "bag_colour", "bag_side", "bag_size", "held"),
}


class Colour(NamedTuple):
    """A colour of the wardrobe's palettes, in somebody's own shade."""

    name: str
    rgb: tuple[float, float, float]  # sRGB, 0 to 255


@dataclass(frozen=True)
class Person:
    """One identity. Measures that are not named otherwise are from 0 to 1."""

    woman: bool
    # The body. The first six are anny's phenotypes.
    age: float
    stature: float
    proportions: float
    weight: float
    muscle: float
    width: float  # of the body, and below: length of the legs; 1 is anny's
    legs: float
    skin: Colour
    # How they walk: radians, but for the looseness of clothes, from 0 on.
    stride: float
    arm_out: float
    elbow: float
    lean: float
    looseness: float
    hair: str
    hair_colour: Colour
    headwear_colour: Colour
    hair_volume: float  # metres
    top: str
    top_colour: Colour
    inner_colour: Colour  # beneath an open jacket
    pattern: str
    pattern_colour: Colour
    pattern_scale: float
    pattern_kind: int
    sleeves: float  # shoulder 0, elbow 1, wrist 2
    hem: float  # added to where tops of this kind end
    print: str
    print_colour: Colour
    bottom: str
    bottom_colour: Colour
    length: float  # hip 0, knee 1, ankle 2
    side_stripe: str
    stripe_colour: Colour
    shoes: Colour
    bag: str
    bag_colour: Colour
    bag_side: str
    bag_size: float
    held: str  # in the other hand
    grain: float  # how rough the top's cloth is
    grain_scale: float  # threads a metre
    print_box: tuple[float, float, float, float]  # middle and half width and height, metres
    seed: int  # of noise: the print's shape, folds
    family: int  # from 1; 0 is none

    @property
    def phenotypes(self) -> dict[str, float]:
        """Anny's."""
        return {
            "gender": 0.95 if self.woman else 0.05,
            "age": self.age,
            "height": self.stature,
            "proportions": self.proportions,
            "weight": self.weight,
            "muscle": self.muscle,
        }

    @property
    def looks(self) -> dict[str, str]:
        """What can be seen, as classes; the colour of what somebody does not wear is "none"."""
        seen = {"gender": "woman" if self.woman else "man", "skin": self.skin.name}
        for name in WARDROBE["looks"]:
            value = getattr(self, name)
            seen[name] = value.name if isinstance(value, Colour) else value
        for name, (measure, limits) in WARDROBE["classes"].items():
            place = np.searchsorted(list(limits.values()), getattr(self, measure))
            seen[name] = [*limits, "most"][place]
        for thing, bare in WARDROBE["bare"].items():
            if getattr(self, thing) in bare:
                seen[WARDROBE["colour_of"][thing]] = "none"
        return seen

    @property
    def facts(self) -> dict[str, str | float]:
        """The person's columns of the table of attributes."""
        columns = {"group": self.family, **self.looks, "bag_side": self.bag_side}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Colour):
                levels = [round(level) for level in value.rgb]
                columns[f"{entry.name}_rgb"] = "#{:02x}{:02x}{:02x}".format(*levels)
            elif isinstance(value, float):
                name = f"{entry.name}_measure" if entry.name in columns else entry.name
                columns[name] = round(value, 4)
        return columns


def draw(seed: int, identity: int) -> Person:
    """The identity of this number in the benchmark of this seed.

    Strangers, of distractors and passers-by, have negative numbers and no family.
    """
    if identity < 0:
        rng = np.random.default_rng([seed, 1, -identity, 1])
        return own(anybody(seed, rng), rng)
    number, member = divmod(identity - 1, FAMILY)
    first = anybody(seed, np.random.default_rng([seed, 1, number, 0]))
    rng = np.random.default_rng([seed, 1, number, 2 + member])
    person = replace(first, family=number + 1)
    if member > 0:
        stranger = anybody(seed, rng, first.woman)
        differs = rng.random(len(BLOCKS)) > SHARE
        differs[rng.integers(len(BLOCKS))] |= not differs.any()
        for block, changed in zip(BLOCKS.values(), differs, strict=True):
            if changed:
                person = replace(person, **{name: getattr(stranger, name) for name in block})
    return own(person, rng)


def own(person: Person, rng: np.random.Generator) -> Person:
    """The person with shades, cloth, print and measures of their own."""
    changes = {"seed": int(rng.integers(2**31))}
    for entry in fields(person):
        value = getattr(person, entry.name)
        if isinstance(value, Colour):
            light, spread = WARDROBE["shades"].get(entry.name, WARDROBE["shades"]["cloth"])
            shifted = np.asarray(value.rgb) + rng.normal(0, light) + rng.normal(0, spread, 3)
            changes[entry.name] = Colour(value.name, tuple(np.clip(shifted, 8, 246).tolist()))
    for name, spread in WARDROBE["own"].items():
        value = getattr(person, name) + float(rng.normal(0, spread))
        changes[name] = value if name == "hem" else max(value, 0.03)
    changes["grain"] = float(rng.uniform(0, 0.5))
    changes["grain_scale"] = float(rng.uniform(30, 120))
    half_width = rng.uniform(0.05, 0.15)
    half_height = rng.uniform(0.04, 0.13)
    box = (rng.normal(0, 0.02), rng.uniform(0.26, 0.36), half_width, half_height)
    changes["print_box"] = tuple(float(value) for value in box)
    return replace(person, **changes)


def anybody(seed: int, rng: np.random.Generator, woman: bool | None = None) -> Person:
    """A person out of the street of this seed, of the palettes' plain shades.

    On some streets most people are dressed for summer, on others fewer are.
    """
    summer = np.random.default_rng([seed, 6]).uniform(0.6, 1.0)
    if woman is None:
        woman = bool(rng.random() < 0.5)
    gender = "women" if woman else "men"
    season = "summer" if rng.random() < summer else "winter"

    def pick(*entry: str) -> str:
        """A name of an entry of the wardrobe, by its weight."""
        options = WARDROBE
        for key in entry:
            options = options[key]
        weights = np.array(list(options.values()))
        return str(rng.choice(list(options), p=weights / weights.sum()))

    def colour(palette: str) -> Colour:
        name = pick("colours", palette)
        return Colour(name, tuple(WARDROBE["palettes"][palette][name]))

    def measure(name: str) -> float:
        """A normal number inside its limits."""
        mean, spread, low, high = WARDROBE["measures"][name]
        return float(np.clip(rng.normal(mean, spread), low, high))

    top = pick("tops", season)
    bottom = pick("bottoms", season, gender)
    pattern = pick("patterns")
    is_jacket = top in ("coat", "open jacket")
    if is_jacket and rng.random() < 0.8:
        pattern = "plain"
    has_print = not is_jacket and rng.random() < (0.5 if pattern == "plain" else 0.1)
    bent = rng.random() < 0.15  # arms bent, as of somebody who looks at a phone
    low, high = WARDROBE["sleeves"][top]
    shortest, longest = WARDROBE["lengths"][bottom]
    has_stripe = bottom in ("trousers", "shorts") and rng.random() < 0.12
    measures = {name: measure(name) for name in WARDROBE["measures"]}
    if bent:
        measures["elbow"] += float(rng.uniform(0.5, 1.2))
    return Person(
        woman=woman,
        **measures,
        skin=colour("skin"),
        hair=pick("hair", season, gender),
        hair_colour=colour("hair"),
        headwear_colour=colour("top"),
        top=top,
        top_colour=colour("winter" if is_jacket else "top"),
        inner_colour=colour("top"),
        pattern=pattern,
        pattern_colour=colour("top"),
        pattern_scale=float(np.exp(rng.uniform(-1, 0.4))),
        pattern_kind=int(rng.integers(4)),
        sleeves=float(rng.uniform(low, high)),
        print="print" if has_print else "none",
        print_colour=colour("top"),
        bottom=bottom,
        bottom_colour=colour("bottom"),
        length=float(rng.uniform(shortest, longest)),
        side_stripe="stripe" if has_stripe else "none",
        stripe_colour=colour("top"),
        shoes=colour("shoes"),
        bag=pick("bags"),
        bag_colour=colour("bag"),
        bag_side=str(rng.choice(["L", "R"])),
        held=pick("held"),
        grain=0.0,
        grain_scale=60.0,
        print_box=(0.0, 0.3, 0.1, 0.1),
        seed=0,
        family=0,
    )
