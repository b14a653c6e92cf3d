"""The people of the probe: pairs who differ in exactly one cue, by a step of three strengths.

The benchmark's people differ in many things at once. These tell which things a model sees. They
come in groups of four: a base out of the street, and three look-alikes. A look-alike has the base's
seed of noise, shades, cloth and measures, but for one cue. Their first pictures in a camera have
the same pose, place, light, errors of the box and things in front, and so do their second ones. So
two such pictures differ in nothing but the cue.
"""

from dataclasses import replace
from itertools import count

import numpy as np

from .garments import has_skirt
from .people import BLOCKS, WARDROBE, Colour, Person, anybody, own

FIRST = 5001  # the first one's number: no picture shares its draws with one of the benchmark
STRENGTHS = 4  # from 0, the base, to 3
STEP = 45  # of a colour from one strength to the next: a distance in sRGB, 0 to 255
LOCAL = {"print": "print_colour", "shoes": "shoes", "bag": "bag_colour", "hair": "hair_colour"}
CUES = (*LOCAL, "build", "height", "silhouette", "gait")
PALETTES = {"print": "top", "shoes": "shoes", "bag": "bag", "hair": "hair"}
BAGS = [bag for bag in WARDROBE["bags"] if bag != "none"]


def is_of_probe(identity: int) -> bool:
    """Whether this is the number of somebody of the probe."""
    return identity >= FIRST


def base_of(identity: int) -> int:
    """The number of the base whose look-alike somebody is; of others their own."""
    if not is_of_probe(identity):
        return identity
    return identity - (identity - FIRST) % STRENGTHS


def facts(identity: int) -> dict[str, str | int]:
    """What tells somebody of the probe from the base: `cue`, its `kind`, and its `strength`."""
    group, strength = divmod(identity - FIRST, STRENGTHS)
    cue = CUES[group % len(CUES)]
    kind = "local" if cue in LOCAL else "global"
    return {"cue": cue, "kind": kind, "strength": strength}


def comes_near(identity: int) -> bool:
    """Whether somebody walks towards every camera, so that a print is seen."""
    return is_of_probe(identity) and facts(identity)["cue"] == "print"


def draw_alike(seed: int, identity: int) -> Person:
    """Somebody of the probe of this seed; `family` is the group, from 1.

    The base is the first passer-by on whom the cue can be seen. For a print: on a plain top of
    another colour. For shoes: nothing hangs over them. For hair: no hat, not shaved. For a bag: one
    is carried. For a global cue: no skirt, no coat, and measures that have room for the strongest
    step.

    A local cue's colour goes one, two or three times `STEP` towards the farthest one of its
    palette. In the third step a print has another size too, and bag and hair are of another kind.
    A global cue's measures (`people.BLOCKS`) all go up, or all down, by one, two or three standard
    deviations of the street.
    """
    cue = facts(identity)["cue"]
    group, strength = divmod(identity - FIRST, STRENGTHS)
    rng = np.random.default_rng([seed, 9, group])
    passers_by = (own(anybody(seed, rng), rng) for _ in count())
    base = next(person for person in passers_by if _shows(person, cue))
    person = replace(base, family=group + 1)
    if strength == 0:
        return person
    if cue in LOCAL:
        return replace(person, **_local_step(person, cue, strength))
    return replace(person, **_global_step(person, cue, strength))


def _shows(person: Person, cue: str) -> bool:
    """Whether the cue can be seen on a person."""
    match cue:
        case "print":
            is_plain = person.print == "print" and person.pattern == "plain"
            return is_plain and _distance(person.print_colour.rgb, person.top_colour.rgb) > 90
        case "shoes":
            return person.length < 1.85
        case "bag":
            return person.bag != "none"
        case "hair":
            return person.hair not in ("cap", "beanie", "bald", "shaved")
    return not has_skirt(person) and person.top != "coat" and _direction(person, cue) != 0


def _direction(person: Person, cue: str) -> int:
    """Whether all of a cue's measures can go up (1) or down (-1) to the third step, or not (0)."""
    for sign in (1, -1):
        rooms = []
        for name in BLOCKS[cue]:
            _, spread, low, high = WARDROBE["measures"][name]
            rooms.append(low <= getattr(person, name) + 3 * sign * spread <= high)
        if all(rooms):
            return sign
    return 0


def _global_step(person: Person, cue: str, strength: int) -> dict[str, float]:
    step = strength * _direction(person, cue)
    changes = {}
    for name in BLOCKS[cue]:
        _, spread, _, _ = WARDROBE["measures"][name]
        changes[name] = getattr(person, name) + step * spread
    return changes


def _local_step(person: Person, cue: str, strength: int) -> dict:
    entry = LOCAL[cue]
    changes = {entry: _moved(getattr(person, entry), PALETTES[cue], strength)}
    if strength < 3:
        return changes
    match cue:
        case "print":
            x, z, half_width, half_height = person.print_box
            changes["print_box"] = (x, z, 0.2 - half_width, 0.17 - half_height)
        case "bag":
            place = BAGS.index(person.bag) + 1
            changes["bag"] = BAGS[place % len(BAGS)]
        case "hair":
            changes["hair"] = "long" if person.hair == "short" else "short"
    return changes


def _moved(colour: Colour, palette: str, strength: int) -> Colour:
    """A colour after this many steps towards the farthest one of the palette."""
    colours = WARDROBE["palettes"][palette]
    far = max(colours.values(), key=lambda rgb: _distance(rgb, colour.rgb))
    way = np.subtract(far, colour.rgb)
    rgb = np.add(colour.rgb, strength * STEP * way / np.linalg.norm(way))
    name = min(colours, key=lambda name: _distance(colours[name], rgb))
    return Colour(name, tuple(np.clip(rgb, 8, 246).tolist()))


def _distance(one, other) -> float:
    return float(np.linalg.norm(np.subtract(one, other)))
