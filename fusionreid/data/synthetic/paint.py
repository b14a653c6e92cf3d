"""The colour of every visible point of a person: skin, hair, cloth with pattern and print, bags."""

import numpy as np

from .body import SIDES, Surface
from .garments import BAG, BODY, HAIR, HEADWEAR, HELD, HOOD, STRAP, TUBE, covered, hairline
from .people import Colour, Person

PRIMES = (374761393, 668265263, 2147483647)  # one for each axis of the noise
WAIST = 0.16  # radius of the trunk, metres: turns an angle into a length of cloth


def linear(colour) -> np.ndarray:
    """sRGB 0 to 255, or a colour of the wardrobe -> linear light 0 to 1."""
    rgb = colour.rgb if isinstance(colour, Colour) else colour
    return (np.asarray(rgb, np.float32) / 255) ** 2.2


def noise(*coordinates: np.ndarray, seed: int = 0) -> np.ndarray:
    """Value noise in 0 to 1, smooth over unit cells, of one, two or three coordinates (N,)."""
    cells = []
    parts = []
    for values in coordinates:
        cell = np.floor(values).astype(np.int64)
        part = values - cell
        cells.append(cell)
        parts.append((part * part * (3 - 2 * part)).astype(np.float32))
    total = np.zeros(np.shape(coordinates[0]), np.float32)
    # Each corner of a point's cell has a random value, hashed from the corner's place.
    for corner in range(2 ** len(cells)):
        key = np.full(total.shape, seed * 1013 + 1, np.int64)
        weight = np.ones_like(total)
        for axis, cell in enumerate(cells):
            is_far = corner >> axis & 1
            key = key * 7919 + (cell + is_far) * PRIMES[axis]
            weight = weight * (parts[axis] if is_far else 1 - parts[axis])
        key = (key ^ (key >> 13)) * 1274126177 & 0xFFFFFFFF
        key = (key ^ (key >> 16)) * 2246822519 & 0xFFFFFFFF
        value = ((key >> 8) & 0xFFFF).astype(np.float32)
        total += weight * value / 65535
    return total


def _around(p: Surface) -> np.ndarray:
    """The length of cloth around the trunk, from the middle of the front, metres."""
    return np.arctan2(p.x, -p.y) * WAIST


def _pattern(person: Person, u, v, p: Surface) -> np.ndarray:
    """How much of the pattern's colour is where: (N,) 0 to 1; u runs around, v up, metres."""
    width = 0.055 * person.pattern_scale
    is_upright = u % (2 * width) < width
    is_level = v % (2 * width) < width
    if person.pattern == "stripes":
        return is_level
    if person.pattern == "vertical stripes":
        return is_upright
    if person.pattern == "checks":
        return 0.5 * is_level + 0.5 * is_upright
    if person.pattern == "flowers":
        cells = 1.6 * width
        return noise(u / cells, v / cells, seed=person.seed % 1000) > 0.58
    if person.pattern == "blocks":
        blocks = [p.on_arm, p.torso > 0.62, p.torso < 0.36, u > 0]
        return blocks[person.pattern_kind]
    return np.zeros(len(u), bool)


def _print(person: Person, p: Surface) -> np.ndarray:
    """Where the print on the chest is: (N,) bool. Its shape is the person's own."""
    if person.print == "none":
        return np.zeros(len(p.x), bool)
    x, z, half_width, half_height = person.print_box
    s = (p.x - x) / half_width
    t = (p.z - z) / half_height
    is_box = (np.abs(s) < 1) & (np.abs(t) < 1)
    shape = person.seed % 997
    cells = 1.5 + 2 * (shape % 5) / 4  # of the noise in half the width
    level = 0.35 + 0.2 * (shape % 7) / 6
    is_ink = noise(s * cells + 40, t * cells + 40, seed=shape) > level
    return is_box & is_ink & (p.y < -0.01) & ~p.on_arm


def _cloth(person: Person, u, v) -> np.ndarray:
    """How light the top's threads are, about 1: (N,). Coarse cloth has visible ones."""
    scale = person.grain_scale
    threads = noise(u * scale, v * scale, seed=person.seed % 991) - 0.5
    washed = noise(u * 6, v * 6, seed=person.seed % 983) - 0.5
    return 1 + person.grain * threads + 0.2 * washed


def _top(person: Person, p: Surface, u) -> np.ndarray:
    """The colour of the top, (N, 3); u runs around, metres."""
    v = np.where(p.on_arm, -0.29 * p.arm, p.z)
    share = _pattern(person, u, v, p)[:, None]
    colour = (1 - share) * linear(person.top_colour) + share * linear(person.pattern_colour)
    colour *= _cloth(person, u, v)[:, None]
    colour[_print(person, p)] = linear(person.print_colour)
    is_front = (p.y < 0) & ~p.on_arm
    inner = linear(person.inner_colour)
    if person.top == "open jacket":
        gap = 0.055 - 0.02 * p.torso
        colour[is_front & (np.abs(p.x) < gap)] = inner
    if person.top == "coat":
        gap = np.clip((p.torso - 0.55) * 0.15, 0.004, 1)
        opening = is_front & (np.abs(p.x) < gap)
        is_open = p.torso[opening, None] > 0.58
        colour[opening] = np.where(is_open, inner, 0.5 * colour[opening])
    return colour


def _paint_face(colour, skin, hair, p: Surface) -> None:
    """Draws mouth, brows and eyes into `colour`."""
    is_face = p.on_head & (p.y < -0.09)
    across = np.abs(p.x)
    mouth = is_face & (np.abs(p.z + 0.03) < 0.009) & (across < 0.024)
    brows = is_face & (np.abs(p.z - 0.062) < 0.006) & (np.abs(across - 0.033) < 0.019)
    lids = is_face & (np.abs(p.z - 0.04) < 0.007) & (np.abs(across - 0.032) < 0.014)
    colour[mouth] = skin * [0.75, 0.5, 0.5]
    colour[brows] = np.minimum(hair, skin * 0.5)
    colour[lids] = skin * 0.35
    colour[p.is_eye > 0.5] = 0.06


def _paint_hair(person: Person, colour, skin, hair, p: Surface) -> np.ndarray:
    """`colour` with the hair that is close to the head, or a cap or beanie."""
    edge = hairline(p.y, p.z) + 0.012 * (noise(p.x * 90, p.y * 90, p.z * 30) - 0.5)
    if person.hair in ("beanie", "cap"):
        colour[p.on_head & (edge > -0.025) & (p.y > -0.02)] = hair
        hat = p.on_head & (hairline(p.y, p.z) > -0.004)
        colour[hat] = linear(person.headwear_colour)
        return colour
    scalp = p.on_head & (edge > 0)
    if person.hair == "shaved":
        colour[scalp] = 0.45 * skin + 0.4 * hair
    elif person.hair != "bald":
        turn = np.arctan2(p.x, p.y + 0.02)
        streaks = 0.65 + 0.7 * noise(turn * 14, p.z * 25, seed=3)
        colour = np.where(scalp[:, None], hair * streaks[:, None], colour)
    return colour


def _paint_bottom(person: Person, colour, bottom, p: Surface) -> None:
    """Draws trousers, shorts or what is under a skirt into `colour`, where `bottom` is."""
    cloth = linear(person.bottom_colour)
    colour[bottom] = cloth
    if "denim" in person.bottom_colour.name and person.bottom in ("trousers", "shorts"):
        # Worn lighter in front of the thighs.
        worn = 1 + 0.5 * np.exp(-(((p.leg - 0.5) / 0.35) ** 2)) * (p.y < 0)
        colour[bottom] = cloth * worn[bottom, None]
    if person.side_stripe != "none":
        # The outer side: x beyond the middle of the leg, y about the middle.
        is_outside = (np.abs(p.y) < 0.022) & (np.abs(p.x) > 0.12)
        stripe = bottom & p.on_leg & is_outside
        colour[stripe] = linear(person.stripe_colour)


def _straps(person: Person, p: Surface) -> np.ndarray:
    """Where the straps of a bag cross the trunk: (N,) bool."""
    across = np.abs(p.x)
    if person.bag == "backpack":
        straps = (np.abs(across - 0.105) < 0.021) & (p.torso > 0.45) & (p.y < 0.06)
    elif person.bag == "shoulder bag":
        middle = SIDES[person.bag_side] * (0.17 - 0.29 * p.torso)
        straps = (np.abs(p.x - middle) < 0.024) & (p.torso > -0.1) & (p.torso < 1.05)
    else:
        straps = np.zeros(len(across), bool)
    return straps & ~p.on_arm & ~p.on_head


def _body(person: Person, p: Surface) -> np.ndarray:
    """The colour of points on the body's own surface, (N, 3)."""
    skin = linear(person.skin)
    hair = linear(person.hair_colour)
    colour = np.tile(skin, (len(p.x), 1))
    _paint_face(colour, skin, hair, p)
    colour = _paint_hair(person, colour, skin, hair, p)
    top, bottom = covered(person, p)
    _paint_bottom(person, colour, bottom, p)
    u = np.where(p.on_arm, p.y, _around(p))
    of_top = Surface(*(values[top] for values in p))
    colour[top] = _top(person, of_top, u[top])
    belt = bottom & (np.abs(p.torso - 0.3) < 0.02) & ~p.on_leg
    colour[belt] = 0.05
    shoes = (p.leg > 1.93) & p.on_leg & ~bottom
    colour[shoes] = linear(person.shoes)
    colour[_straps(person, p)] = linear(person.bag_colour) * 0.8
    return colour


def _hanging(person: Person, p: Surface) -> np.ndarray:
    """The colour of a skirt or of a coat's tails, (N, 3)."""
    if person.top == "coat":
        return _top(person, p, _around(p))
    colour = np.tile(linear(person.bottom_colour), (len(p.x), 1))
    if person.pattern_kind == 0:  # a quarter of the skirts have stripes
        colour[p.z % 0.16 < 0.05] = linear(person.pattern_colour)
    return colour


def _bag_shade(p: Surface) -> np.ndarray:
    """How dark the parts of a bag are: its zips and its pocket (N,)."""
    is_zip = np.abs(p.z - 0.11) < 0.006
    is_edge = np.abs(p.z + 0.02) < 0.008
    is_pocket = (p.z < -0.02) & (p.z > -0.14) & (np.abs(p.x) < 0.11)
    return np.select((is_zip, is_edge, is_pocket), (0.4, 0.35, 0.75), 1.0)


def paint(
    person: Person, layer: np.ndarray, attributes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Linear albedo (N, 3) of points of a person, and whether their cloth has folds (N,).

    `layer` (N,) says what each point is (`garments.BODY`, ...); `attributes` (N, 12) are the
    columns of `Surface`.
    """

    def of(kind) -> Surface:
        return Surface.of(attributes[layer == kind])

    colour = np.zeros((len(layer), 3), np.float32)
    colour[layer == BODY] = _body(person, of(BODY))
    hair = of(HAIR)
    streaks = 0.6 + 0.8 * noise(hair.x * 160 + hair.y * 90, hair.z * 12, seed=5)
    colour[layer == HAIR] = linear(person.hair_colour) * streaks[:, None]
    colour[layer == HEADWEAR] = linear(person.headwear_colour) * 0.9
    colour[layer == HOOD] = linear(person.top_colour)
    colour[layer == HELD] = linear(person.stripe_colour)
    bag = linear(person.bag_colour)
    colour[layer == BAG] = bag * _bag_shade(of(BAG))[:, None]
    colour[layer == STRAP] = bag * 0.7
    colour[layer == TUBE] = _hanging(person, of(TUBE))
    top, bottom = covered(person, Surface.of(attributes))
    is_cloth = (layer == BODY) & (top | bottom)
    return colour, is_cloth | (layer == TUBE)
