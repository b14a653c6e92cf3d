"""Who is rendered: the attributes that make an identity of the synthetic benchmark.

Identities come in groups of four look-alikes. They share an outfit, colours and body, but for one
cue: a local one (the print on the chest, the shoes, the bag or the hair: what it is and its colour)
or a global one (build, height, silhouette, gait), half and half.
"""

import json
from dataclasses import dataclass, replace
from importlib.resources import files

import numpy as np

_WARDROBE = json.loads(files(__package__).joinpath("wardrobe.json").read_text(encoding="utf-8"))

# Colours are sRGB, 0 to 255. The numbers of entries that are not named here are how often they
# occur.
TOP_COLOURS = _WARDROBE["top_colours"]
BOTTOM_COLOURS = _WARDROBE["bottom_colours"]
BAG_COLOURS = _WARDROBE["bag_colours"]
SHOE_COLOURS = _WARDROBE["shoe_colours"]
HAIR_COLOURS = _WARDROBE["hair_colours"]
SKIN = _WARDROBE["skin"]

ALIKE = 4  # identities in a group
CUES = {
    "local": ("print", "shoes", "bag", "hair"),
    "global": ("build", "height", "silhouette", "gait"),
}
BUILDS = _WARDROBE["builds"]  # weight and muscle, anny's, and how wide the body is
LEGS = _WARDROBE["legs"]  # how long they are; a taller person's are longer
SILHOUETTES = _WARDROBE["silhouettes"]  # how far clothes stand off, trousers most
GAITS = _WARDROBE[
    "gaits"
]  # stride, how far the arms stand off, bend of the elbows, lean forwards; radians
_UNSEEN = ("kind", "cue", "value", "bag_side", "inner_colour")


@dataclass(frozen=True)
class Person:
    """One identity.

    Colours are names of the palettes above; `shape` holds anny's phenotypes, 0 to 1.
    """

    shape: dict[str, float]
    build: str
    height: str
    silhouette: str
    gait: str
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
    side_stripe: str
    shoes: str
    bag: str
    bag_colour: str
    bag_side: str
    seed: int
    group: int = 0  # of look-alikes, from 1; 0 is none
    kind: str = ""  # of the cue that tells the group apart: "local" or "global"
    cue: str = ""
    value: str = ""  # of the cue, this person's

    @property
    def phenotypes(self) -> dict[str, float]:
        """Anny's, those of the build included."""
        return self.shape | dict(zip(("weight", "muscle"), BUILDS[self.build], strict=False))

    @property
    def looseness(self) -> float:
        return SILHOUETTES[self.silhouette]

    @property
    def looks(self) -> dict[str, str]:
        """What can be seen, by name; the colour of what somebody does not wear is "none"."""
        seen = {}
        for name, value in vars(self).items():
            if isinstance(value, str) and name not in _UNSEEN:
                seen[name] = value
        if self.print == "none":
            seen["print_colour"] = "none"
        if self.pattern == "plain":
            seen["pattern_colour"] = "none"
        if self.bag == "none":
            seen["bag_colour"] = "none"
        if self.hair not in ("cap", "beanie"):
            seen["headwear_colour"] = "none"
        seen["skin"] = str(self.skin)
        seen["gender"] = "woman" if self.shape["gender"] > 0.5 else "man"
        return seen

    @property
    def facts(self) -> dict[str, str | float]:
        """The person's columns of the table of attributes."""
        return self.looks | {
            "bag_side": self.bag_side,
            "inner_colour": self.inner_colour,
            "age": round(self.shape["age"], 4),
            "stature": round(self.shape["height"], 4),
            "proportions": round(self.shape["proportions"], 4),
            "sleeves": round(self.sleeves, 4),
            "length": round(float(self.length), 4),
            "pattern_scale": round(self.pattern_scale, 4),
        }


def _pick(rng: np.random.Generator, entry: str, exclude: str | None = None) -> str:
    """A name of an entry of the wardrobe: by its weight if it has one, else any alike."""
    options = _WARDROBE[entry]
    names = [name for name in options if name != exclude]
    if isinstance(options, dict) and isinstance(options[names[0]], float):
        weights = np.array([options[name] for name in names])
        return str(rng.choice(names, p=weights / weights.sum()))
    return str(names[int(rng.integers(len(names)))])


def _shuffled(rng: np.random.Generator, entry: str, like: str | None = None) -> list[str]:
    """Names of an entry of the wardrobe in random order.

    The half of the colours that are nearest to `like` is left out.
    """
    options = _WARDROBE[entry]
    names = list(options)
    if like:
        names.sort(key=lambda name: np.abs(np.subtract(options[name], options[like])).sum())
        names = names[len(names) // 2 :]
    return [str(name) for name in rng.permutation(names)]


def draw(seed: int, identity: int) -> Person:
    """The identity of this number in the benchmark of this seed.

    Distractors have negative numbers, and no group.
    """
    if identity < 0:
        return _anybody(np.random.default_rng([seed, 1, -identity, 1]))
    group, member = divmod(identity - 1, ALIKE)
    rng = np.random.default_rng([seed, 1, group, 0])
    kind = tuple(CUES)[group % 2]
    cue = CUES[kind][group // 2 % len(CUES[kind])]
    return _tell_apart(replace(_anybody(rng), group=group + 1, kind=kind, cue=cue), member, rng)


def _tell_apart(person: Person, member: int, rng: np.random.Generator) -> Person:
    """One of the group's four: `person` with the cue's value of this member.

    `rng` is the group's, not the member's.
    """
    level = int(rng.permutation(ALIKE)[member])
    woman = person.shape["gender"] > 0.5
    if person.cue == "print":
        # On a plain top, in colours that are seen on it.
        top = person.top if person.top in ("t-shirt", "long sleeves", "hoodie") else "t-shirt"
        value, colour = (
            _shuffled(rng, "prints")[member],
            _shuffled(rng, "top_colours", person.top_colour)[member],
        )
        sleeves = person.sleeves if person.top == top else 0.7
        changed = dict(top=top, sleeves=sleeves, pattern="plain", print=value, print_colour=colour)
    elif person.cue == "shoes":
        value = _shuffled(rng, "shoe_colours")[member]
        changed = dict(shoes=value, length=min(person.length, 1.9))
    elif person.cue == "bag":
        value = list(_WARDROBE["bags"])[level]
        changed = dict(bag=value, bag_colour=_shuffled(rng, "bag_colours")[member])
    elif person.cue == "hair":
        value = _shuffled(rng, "hair_cues_women" if woman else "hair_cues_men")[member]
        colours = dict(hair_colour="hair_colours", headwear_colour="top_colours")
        changed = dict(hair=value) | {
            name: _shuffled(rng, entry)[member] for name, entry in colours.items()
        }
    else:
        # A detector's box makes all people equally high: what shows of height is the legs' length.
        value = list(
            {"build": BUILDS, "height": LEGS, "silhouette": SILHOUETTES, "gait": GAITS}[person.cue]
        )[level]
        changed = {person.cue: value}
        # A silhouette shows on trousers, and a long skirt hides how its wearer walks.
        if person.cue == "silhouette" or (person.cue == "gait" and person.bottom == "long skirt"):
            changed |= dict(bottom="trousers", length=1.95)
    return replace(person, value=value, **changed)


def _anybody(rng: np.random.Generator) -> Person:
    """A person out of the street."""
    woman = bool(rng.random() < 0.5)
    top = _pick(rng, "tops")
    bottom = _pick(rng, "bottoms_women" if woman else "bottoms_men")
    top_colour = _pick(rng, "top_colours")
    jacket = top in ("coat", "open jacket")
    pattern = _pick(rng, "jacket_patterns" if jacket else "patterns")
    has_print = not jacket and rng.random() < (0.65 if pattern == "plain" else 0.15)
    hair = _pick(rng, "hair_women" if woman else "hair_men")
    return Person(
        shape={
            "gender": float(rng.uniform(0.85, 1.0) if woman else rng.uniform(0.0, 0.15)),
            "age": float(rng.uniform(0.58, 0.95)),
            "height": float(rng.uniform(0.4, 0.62)),
            "proportions": float(rng.uniform(0.35, 0.75)),
        },
        build=str(rng.choice(list(BUILDS))),
        height=str(rng.choice(list(LEGS))),
        silhouette=str(rng.choice(list(SILHOUETTES))),
        gait=str(rng.choice(list(GAITS))),
        skin=int(rng.choice(len(SKIN), p=[0.22, 0.24, 0.2, 0.14, 0.12, 0.08])),
        hair=hair,
        hair_colour=_pick(rng, "hair_shares"),
        headwear_colour=_pick(rng, "top_colours"),
        top=top,
        top_colour=top_colour,
        pattern=pattern,
        pattern_colour=_pick(rng, "top_colours", exclude=top_colour),
        pattern_scale=float(rng.uniform(0.8, 1.5)),
        sleeves=float({"t-shirt": rng.uniform(0.5, 0.85), "sleeveless": 0.08}.get(top, 1.97)),
        print=_pick(rng, "prints") if has_print else "none",
        print_colour=_pick(rng, "top_colours", exclude=top_colour),
        inner_colour=_pick(rng, "top_colours", exclude=top_colour),
        bottom=bottom,
        bottom_colour=_pick(rng, "bottom_shares"),
        length={
            "shorts": rng.uniform(0.6, 1.0),
            "trousers": rng.uniform(1.86, 2.02),
            "skirt": rng.uniform(0.6, 1.0),
            "long skirt": rng.uniform(1.3, 1.8),
        }[bottom],
        side_stripe=_pick(rng, "top_colours")
        if bottom in ("trousers", "shorts") and rng.random() < 0.15
        else "none",
        shoes=_pick(rng, "shoe_colours"),
        bag=_pick(rng, "bags"),
        bag_colour=_pick(rng, "bag_colours"),
        bag_side="LR"[int(rng.integers(2))],
        seed=int(rng.integers(2**31)),
    )
