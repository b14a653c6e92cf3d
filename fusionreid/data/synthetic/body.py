"""The bodies of the synthetic benchmark: anny's shapes, reduced to 19 rigid parts, posed here.

World axes: x to the person's left, y backwards (people face -y), z up, metres. `anny` is imported
only when a `BodyModel` is made. Posing is plain numpy without BLAS, so that the result does not
depend on the number of threads.
"""

import contextlib
import gzip
import io
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import NamedTuple
from unittest import mock

import numpy as np
from einops import rearrange

from .people import Person

# Part: [parent, prefixes of anny's bone labels, with the side after a bar].
PARTS = json.loads(files(__package__).joinpath("body.json").read_text(encoding="utf-8"))
NAMES = list(PARTS)
INDEX = {name: index for index, name in enumerate(NAMES)}
SIDES = {"L": 1, "R": -1}  # the sign of x on each side
ARM = ("upperarm", "forearm", "hand")  # each part begins at its joint: shoulder, elbow, wrist
LEG = ("thigh", "shin", "foot")  # hip, knee, ankle
IN_HAND = ("handbag", "plastic bag")


class Surface(NamedTuple):
    """What is known of every vertex, wherever the identity's shape moves it: arrays (V,).

    Interpolated to pixels, it says which colour a point has. Positions are those of the average
    body, for the head's vertices relative to the head.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    torso: np.ndarray  # 0 at the hips, 1 at the neck
    arm: np.ndarray  # 0 at the shoulder, 1 at the elbow, 2 at the wrist
    leg: np.ndarray  # 0 at the hip, 1 at the knee, 2 at the ankle
    is_arm: np.ndarray  # from here on weights, 0 to 1
    is_leg: np.ndarray
    is_head: np.ndarray
    is_hand: np.ndarray
    is_foot: np.ndarray
    is_eye: np.ndarray

    @classmethod
    def of(cls, attributes: np.ndarray) -> "Surface":
        """The columns of an array (V, 12)."""
        return cls(*attributes.T)

    @property
    def on_arm(self) -> np.ndarray:
        """Which vertices belong to an arm more than to anything else."""
        return self.is_arm > 0.5

    @property
    def on_leg(self) -> np.ndarray:
        """The same of a leg."""
        return self.is_leg > 0.5

    @property
    def on_head(self) -> np.ndarray:
        """The same of the head."""
        return self.is_head > 0.5


ATTRIBUTES = len(Surface._fields)


@dataclass(frozen=True)
class Template:
    """What all identities share."""

    faces: np.ndarray  # (F, 3) triangles
    weights: np.ndarray  # (V, 19) skinning weights on `NAMES`
    attributes: np.ndarray  # (V, 12), the columns of `Surface`
    neighbours: np.ndarray  # (E, 2) directed edges, for smoothing


def _part_of(label: str) -> int:
    """The index of the part to which a bone of anny's belongs."""
    stem, _, side = label.partition(".")
    for name, (_, prefixes) in PARTS.items():
        for entry in prefixes:
            prefix, _, wanted_side = entry.partition("|")
            if stem.startswith(prefix) and wanted_side in ("", side):
                return INDEX[name]
    raise ValueError(f"anny's bone {label!r} belongs to no part of the body; expected anny 0.6")


def _blend_shape(filename, vertices_count, world_transformation, dtype):
    """What anny's own reader gives, to the bit.

    That one takes minutes for the 1,258 files, which are read once.
    """
    import torch

    with gzip.open(filename, "rt") as file:
        numbers = np.array(file.read().split(), float)
    table = numbers.reshape(-1, 4)  # the vertex's number, then its offset
    offsets = np.zeros((vertices_count, 3))
    offsets[table[:, 0].astype(int)] = table[:, 1:]
    return world_transformation.apply(torch.as_tensor(offsets, dtype=dtype))


def _load_anny():
    """Anny's model. Raises ImportError with advice if the package is missing."""
    # Importing warp, which anny uses, prints a banner.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            import anny
            from anny.models import full_model
        except ImportError as error:
            advice = "synthetic people need the package anny: pip install 'fusionreid[synthetic]'"
            raise ImportError(advice) from error
        # `create`: a version of anny that reads by another function keeps its own.
        with mock.patch.object(full_model, "load_blend_shape", _blend_shape, create=True):
            return anny.Anny(skinning_method="lbs")


class BodyModel:
    """Anny's parametric body. `of` gives the vertices and joints of a person."""

    def __init__(self):
        self._model = _load_anny()
        self._parts = [_part_of(label) for label in self._model.bone_labels]
        self._first = [self._parts.index(part) for part in range(len(NAMES))]
        self._kept = slice(None)  # all of anny's vertices, until the coarser mesh is made
        vertices, joints = self.shape(age=0.67)
        self._kept, faces = _coarser(vertices, joints, self._model.faces.numpy())
        self.template = self._template(vertices[self._kept], joints, faces)

    def of(self, person: Person) -> tuple[np.ndarray, np.ndarray]:
        """Vertices and joints of a person at rest, as `shape` gives them."""
        vertices, joints = self.shape(**person.phenotypes)
        hips = joints[INDEX["thigh.L"], 2]
        floor = vertices[:, 2].min()
        for points in (vertices, joints):
            points[:, :2] *= person.width
            # The legs are stretched; what lies above the hips moves up with them.
            points[:, 2] += (person.legs - 1) * (np.minimum(points[:, 2], hips) - floor)
        return vertices, joints

    def shape(self, **phenotype: float) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (V, 3) and the parts' joints (19, 3) at rest, float32, metres.

        Phenotypes are anny's, 0 to 1; those that are not named are 0.5.
        """
        import torch

        values = {name: phenotype.get(name, 0.5) for name in self._model.phenotype_labels}
        with torch.no_grad():
            result = self._model(phenotype_kwargs=values)
        vertices = result["rest_vertices"][0].numpy().astype(np.float32)
        bones = result["rest_bone_heads"][0].numpy().astype(np.float32)
        return vertices[self._kept], bones[self._first]

    def _template(self, vertices, joints, faces) -> Template:
        bones = self._model.vertex_bone_indices.numpy()[self._kept]
        bone_weights = self._model.vertex_bone_weights.numpy()[self._kept]
        parts = np.asarray(self._parts)[bones]
        rows = np.arange(len(bones))[:, None]
        weights = np.zeros((len(bones), len(NAMES)), np.float32)
        np.add.at(weights, (rows, parts), bone_weights)
        weights /= weights.sum(1, keepdims=True)
        labels = self._model.bone_labels
        eyes = [index for index, label in enumerate(labels) if label.startswith("eye")]
        is_eye = (bone_weights * np.isin(bones, eyes)).sum(1)
        attributes = _attributes(vertices, joints, weights, is_eye).astype(np.float32)
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        edges = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
        return Template(faces, weights, attributes, edges)


def _coarser(vertices, joints, faces) -> tuple[np.ndarray, np.ndarray]:
    """A mesh of a third of the triangles: which vertices are kept, and the faces between them.

    Space is cut into cells two centimetres wide, one in the head. The first vertex in a cell stands
    for all that are there. At the size of the pictures the difference is not seen, and drawing
    takes half the time.
    """
    is_head = vertices[:, 2] > joints[INDEX["head"], 2] - 0.03
    cell = np.where(is_head, 0.01, 0.02)
    cells = np.floor(vertices / cell[:, None]).astype(np.int64)
    keys = np.column_stack([is_head, cells])
    _, kept, number = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    faces = number.reshape(-1)[faces]
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (a != c)]
    return kept, faces


def _along(points, start, bend, end):
    """Position along a limb: 0 at its start, 1 at its bend, 2 at its end."""
    first = bend - start
    second = end - bend
    upper = ((points - start) @ first) / (first @ first)
    lower = ((points - bend) @ second) / (second @ second)
    middle = first / np.linalg.norm(first) + second / np.linalg.norm(second)
    is_lower = (points - bend) @ middle > 0
    return np.where(is_lower, 1 + np.maximum(lower, 0), np.minimum(upper, 1))


def _attributes(vertices, joints, weights, is_eye):
    """The columns of `Surface` of the average body's vertices: (V, 12)."""
    joint = {name: joints[index] for name, index in INDEX.items()}

    def total(kind):
        """The weight of each vertex on the parts of one kind, of both sides."""
        return sum(weights[:, index] for name, index in INDEX.items() if name.startswith(kind))

    arm = np.zeros(len(vertices))
    leg = np.zeros(len(vertices))
    is_left = vertices[:, 0] > 0
    for side, mask in (("L", is_left), ("R", ~is_left)):
        arm[mask] = _along(vertices[mask], *(joint[f"{name}.{side}"] for name in ARM))
        leg[mask] = _along(vertices[mask], *(joint[f"{name}.{side}"] for name in LEG))
    hips = joint["thigh.L"][2]
    neck = joint["neck"][2]
    torso = (vertices[:, 2] - hips) / (neck - hips)
    position = vertices.copy()
    head = weights[:, INDEX["head"]] > 0.5
    position[head] -= joint["head"]
    position[~head] -= np.asarray([0, joint["neck"][1], hips], np.float32)
    columns = [
        position,
        torso,
        arm,
        leg,
        sum(map(total, ARM)),
        sum(map(total, LEG)),
        total("head"),
        total("hand"),
        total("foot"),
        is_eye,
    ]
    return np.column_stack(columns)


def _turn(axis: int, angle: float) -> np.ndarray:
    """The rotation (3, 3) about an axis, radians."""
    cosine = np.cos(angle)
    sine = np.sin(angle)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[i, i] = cosine
    matrix[j, j] = cosine
    matrix[i, j] = -sine
    matrix[j, i] = sine
    return matrix


def _aligning(start, end) -> np.ndarray:
    """The smallest rotation (3, 3) that turns one direction (3,) into another."""
    start = start / np.linalg.norm(start)
    end = end / np.linalg.norm(end)
    x, y, z = np.cross(start, end)
    cosine = float(start @ end)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + cosine)


def _direction(swing, outwards, sign):
    """Down, swung forwards by `swing` and outwards by `outwards`, radians."""
    x = sign * np.sin(outwards)
    y = -np.sin(swing) * np.cos(outwards)
    z = -np.cos(swing) * np.cos(outwards)
    return np.array([x, y, z])


def _pose_trunk(lean, twist, head_turn, head_nod) -> dict[str, np.ndarray]:
    """The rotations of pelvis, waist, chest, neck and head."""
    neck_nod = 0.5 * (lean + head_nod)
    return {
        "pelvis": _turn(2, twist) @ _turn(0, 0.3 * lean),
        "waist": _turn(0, 0.7 * lean),
        "chest": _turn(2, -twist) @ _turn(0, lean),
        "neck": _turn(2, 0.4 * head_turn) @ _turn(0, neck_nod),
        "head": _turn(2, head_turn) @ _turn(0, head_nod),
    }


def _pose_leg(rotation, at, side, swing, flex) -> None:
    """Adds the rotations of one leg: its thigh swings forwards, its knee is bent by `flex`."""
    sign = SIDES[side]
    thigh, shin, foot = (f"{name}.{side}" for name in LEG)
    knee_swing = swing - 0.65 * flex
    thigh_end = _direction(swing + 0.35 * flex, 0.03, sign)
    rotation[thigh] = _aligning(at[shin] - at[thigh], thigh_end)
    shin_rest = rotation[thigh] @ (at[foot] - at[shin])
    shin_end = _direction(knee_swing, 0.01, sign)
    rotation[shin] = _aligning(shin_rest, shin_end) @ rotation[thigh]
    rotation[foot] = _turn(0, -0.45 * knee_swing) @ _turn(2, sign * 0.1)


def _pose_arm(rotation, at, side, swing, outwards, bend) -> None:
    """Adds the rotations of one arm, which hangs from the chest."""
    sign = SIDES[side]
    chest = rotation["chest"]
    upper, fore, hand = (f"{name}.{side}" for name in ARM)
    upper_end = _direction(swing, outwards, sign)
    rotation[f"shoulder.{side}"] = chest @ _turn(1, sign * 0.1)
    rotation[upper] = chest @ _aligning(at[fore] - at[upper], upper_end)
    fore_rest = rotation[upper] @ (at[hand] - at[fore])
    fore_end = chest @ _direction(swing + bend, 0.35 * outwards, sign)
    rotation[fore] = _aligning(fore_rest, fore_end) @ rotation[upper]
    rotation[hand] = rotation[fore]


def pose(
    person: Person, joints: np.ndarray, phase: float, stride: float, head: tuple[float, float]
) -> np.ndarray:
    """The rigid transform of each part at one moment of walking: (19, 3, 4) float32.

    `joints` (19, 3) are at rest. In radians: the phase of the gait, the amplitude of the thighs'
    swing (0: standing), the head's turn and nod.
    """
    arm_out = person.arm_out + (0.1 if person.bag == "shoulder bag" else 0)
    twist = 0.12 * stride / 0.4 * np.sin(phase)
    rotation = _pose_trunk(person.lean, twist, *head)
    at = {name: joints[index].astype(float) for name, index in INDEX.items()}
    for side in SIDES:
        turn = phase + (0 if side == "L" else np.pi)
        swing = stride * np.sin(turn)
        # The knee bends while the leg comes forward.
        flex = 0.08 + stride * 1.6 * max(0.0, np.cos(turn)) ** 2
        _pose_leg(rotation, at, side, swing, flex)
        holds_bag = person.bag in IN_HAND and person.bag_side == side
        arm_swing = 0.03 if holds_bag else -0.8 * swing  # a bag keeps the arm from swinging
        bend = person.elbow + (max(0.0, arm_swing) * 0.5)
        _pose_arm(rotation, at, side, arm_swing, arm_out, bend)
    transforms = np.zeros((len(NAMES), 3, 4))
    place = {}  # of each part's joint in this pose
    for index, (name, (parent, _)) in enumerate(PARTS.items()):
        if parent is None:
            place[name] = at[name]
        else:
            place[name] = place[parent] + rotation[parent] @ (at[name] - at[parent])
        transforms[index, :, :3] = rotation[name]
        transforms[index, :, 3] = place[name] - rotation[name] @ at[name]
    return transforms.astype(np.float32)


def skin(vertices: np.ndarray, weights: np.ndarray, transforms: np.ndarray) -> np.ndarray:
    """Linear blend skinning: vertices (V, 3), weights (V, P), transforms (P, 3, 4) -> (V, 3)."""
    flat = rearrange(transforms, "part row column -> part (row column)")
    blended = np.einsum("vp,pk->vk", weights, flat)
    blended = rearrange(blended, "vertex (row column) -> vertex row column", row=3)
    return np.einsum("vij,vj->vi", blended[:, :, :3], vertices) + blended[:, :, 3]


def normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit vertex normals (V, 3), weighted by the areas of the faces (F, 3)."""
    a, b, c = vertices[faces.T]
    face_normals = np.cross(b - a, c - a)
    total = np.zeros((len(vertices), 3))
    np.add.at(total, faces, face_normals[:, None])
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return total / np.maximum(length, 1e-12)
