"""The bodies of the synthetic benchmark: anny's shapes, reduced to 19 rigid parts that are posed here.

World axes: x to the person's left, y backwards (people face -y), z up, metres. `anny` is imported only when a
`BodyModel` is made; posing is plain numpy without BLAS, so that the result does not depend on the threads.
"""

import contextlib
import gzip
import io
import json
from dataclasses import dataclass
from importlib.resources import files
from unittest import mock

import numpy as np

from .people import BUILDS, GAITS, LEGS, Person

# Part: [parent, prefixes of anny's bone labels, with the side after a bar].
PARTS = json.loads(files(__package__).joinpath("body.json").read_text(encoding="utf-8"))
NAMES = list(PARTS)
INDEX = {name: i for i, name in enumerate(NAMES)}

# What is known of every vertex, wherever the identity's shape moves it; interpolated to pixels for painting.
ATTRIBUTES = (
    "x",
    "y",
    "z",
    "torso",
    "arm",
    "leg",
    "is_arm",
    "is_leg",
    "is_head",
    "is_hand",
    "is_foot",
    "is_eye",
)
COLUMN = {name: i for i, name in enumerate(ATTRIBUTES)}


@dataclass(frozen=True)
class Template:
    """What all identities share.

    Of the attributes, `torso` is 0 at the hips and 1 at the neck, `arm` 0 at the shoulder, 1 elbow, 2 wrist, and `leg`
    0 at the hip, 1 knee, 2 ankle; positions are on the average body, those of the head's vertices relative to the head.
    """

    faces: np.ndarray  # (F, 3) triangles
    weights: np.ndarray  # (V, 19) skinning weights on `NAMES`
    attributes: np.ndarray  # (V, 12) columns `ATTRIBUTES`
    neighbours: np.ndarray  # (E, 2) directed edges, for smoothing


def _part_of(label: str) -> int:
    stem, _, side = label.partition(".")
    for name, (_, prefixes) in PARTS.items():
        for prefix in prefixes:
            wanted, _, wanted_side = prefix.partition("|")
            if stem.startswith(wanted) and (not wanted_side or wanted_side == side):
                return INDEX[name]
    raise ValueError(f"anny's bone {label!r} belongs to no part of the body; expected anny 0.6")


def _blend_shape(filename, vertices_count, world_transformation, dtype):
    """What anny's own reader gives, to the bit; that one takes minutes for the 1,258 files, which are read once."""
    import torch

    with gzip.open(filename, "rt") as file:
        table = np.array(file.read().split(), float).reshape(-1, 4)  # vertex, offset
    offsets = np.zeros((vertices_count, 3))
    offsets[table[:, 0].astype(int)] = table[:, 1:]
    return world_transformation.apply(torch.as_tensor(offsets, dtype=dtype))


class BodyModel:
    """Anny's parametric body. `shape` gives one identity's vertices and joints."""

    def __init__(self):
        with contextlib.redirect_stdout(
            io.StringIO()
        ):  # importing warp, which anny uses, prints a banner
            try:
                import anny
                from anny.models import full_model
            except ImportError as error:
                needed = (
                    "synthetic people need the package anny: pip install 'fusionreid[synthetic]'"
                )
                raise ImportError(needed) from error
            # `create`: a version that reads by another function keeps it.
            with mock.patch.object(full_model, "load_blend_shape", _blend_shape, create=True):
                self._model = anny.Anny(skinning_method="lbs")
        self._parts = [_part_of(label) for label in self._model.bone_labels]
        self._first = [self._parts.index(i) for i in range(len(NAMES))]
        self.template = self._template()

    def of(self, person: Person) -> tuple[np.ndarray, np.ndarray]:
        """Vertices and joints at rest of a person, as `shape` gives them."""
        vertices, joints = self.shape(**person.phenotypes)
        hips, floor = joints[INDEX["thigh.L"], 2], vertices[:, 2].min()
        for points in (vertices, joints):
            points[:, :2] *= BUILDS[person.build][2]
            points[:, 2] += (LEGS[person.height] - 1) * (np.minimum(points[:, 2], hips) - floor)
        return vertices, joints

    def shape(self, **phenotype: float) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (V, 3) and the parts' joints (19, 3) at rest, float32; phenotypes are anny's, 0 to 1."""
        import torch

        values = {name: phenotype.get(name, 0.5) for name in self._model.phenotype_labels}
        with torch.no_grad():
            result = self._model(phenotype_kwargs=values)
        vertices = result["rest_vertices"][0].numpy().astype(np.float32)
        joints = result["rest_bone_heads"][0].numpy().astype(np.float32)[self._first]
        return vertices, joints

    def _template(self) -> Template:
        faces = self._model.faces.numpy().astype(np.int32)
        bones, values = (
            self._model.vertex_bone_indices.numpy(),
            self._model.vertex_bone_weights.numpy(),
        )
        weights = np.zeros((len(bones), len(NAMES)), np.float32)
        parts = np.asarray(self._parts)[bones]
        np.add.at(weights, (np.arange(len(bones))[:, None], parts), values)
        weights /= weights.sum(1, keepdims=True)
        eyes = [i for i, label in enumerate(self._model.bone_labels) if label.startswith("eye")]
        is_eye = (values * np.isin(bones, eyes)).sum(1)
        vertices, joints = self.shape(age=0.67)
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        edges = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
        attributes = _attributes(vertices, joints, weights, is_eye)
        return Template(faces, weights, attributes.astype(np.float32), edges)


def _along(points, a, b, c):
    """Position along the limb a, b, c: 0 at a, 1 at b, 2 at c."""
    upper = ((points - a) @ (b - a)) / ((b - a) @ (b - a))
    lower = ((points - b) @ (c - b)) / ((c - b) @ (c - b))
    middle = (b - a) / np.linalg.norm(b - a) + (c - b) / np.linalg.norm(c - b)
    return np.where((points - b) @ middle > 0, 1 + np.maximum(lower, 0), np.minimum(upper, 1))


def _attributes(vertices, joints, weights, is_eye):
    joint = {name: joints[i] for name, i in INDEX.items()}

    def total(*kinds):
        return sum(
            sum(weights[:, i] for name, i in INDEX.items() if name.startswith(kind))
            for kind in kinds
        )

    left = vertices[:, 0] > 0
    arm, leg = np.zeros(len(vertices)), np.zeros(len(vertices))
    for side, mask in (("L", left), ("R", ~left)):
        arm[mask] = _along(
            vertices[mask], *(joint[f"{n}.{side}"] for n in ("upperarm", "forearm", "hand"))
        )
        leg[mask] = _along(
            vertices[mask], *(joint[f"{n}.{side}"] for n in ("thigh", "shin", "foot"))
        )
    hips, neck = joint["thigh.L"][2], joint["neck"][2]
    torso = (vertices[:, 2] - hips) / (neck - hips)
    position = vertices.copy()
    head = weights[:, INDEX["head"]] > 0.5
    position[head] -= joint["head"]
    position[~head] -= np.asarray([0, joint["neck"][1], hips], np.float32)
    limbs = [total("upperarm", "forearm", "hand"), total("thigh", "shin", "foot")]
    return np.column_stack(
        [position, torso, arm, leg, *limbs, total("head"), total("hand"), total("foot"), is_eye]
    )


def _axis_rotation(axis: int, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def _aligning(a, b) -> np.ndarray:
    """The smallest rotation that turns direction a into direction b."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    v, c = np.cross(a, b), float(a @ b)
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + k + k @ k / (1 + c)


def _direction(swing, outwards, side):
    """Down, swung forwards by `swing` and outwards by `outwards`, radians."""
    return np.array(
        [
            side * np.sin(outwards),
            -np.sin(swing) * np.cos(outwards),
            -np.cos(swing) * np.cos(outwards),
        ]
    )


def pose(
    person: Person, joints: np.ndarray, phase: float, stride: float, head: tuple[float, float]
) -> np.ndarray:
    """A moment of walking: joints (19, 3) at rest to the rigid transform of each part, (19, 3, 4) float32.

    In radians: the phase of the gait, the amplitude of the thighs' swing (0: standing), the head's turn and nod.
    """
    (_, arm_out, elbow, lean), rotation, (head_turn, head_nod) = GAITS[person.gait], {}, head
    arm_out += 0.1 if person.bag == "shoulder bag" else 0
    twist = 0.12 * stride / 0.4 * np.sin(phase)
    rotation["pelvis"] = _axis_rotation(2, twist) @ _axis_rotation(0, 0.3 * lean)
    rotation["waist"] = _axis_rotation(0, 0.7 * lean)
    rotation["chest"] = _axis_rotation(2, -twist) @ _axis_rotation(0, lean)
    rotation["neck"] = _axis_rotation(2, 0.4 * head_turn) @ _axis_rotation(
        0, 0.5 * (lean + head_nod)
    )
    rotation["head"] = _axis_rotation(2, head_turn) @ _axis_rotation(0, head_nod)
    at = {name: joints[i].astype(float) for name, i in INDEX.items()}
    for side, sign in (("L", 1), ("R", -1)):
        turn = phase + (0 if side == "L" else np.pi)
        swing = stride * np.sin(turn)
        # The knee bends while the leg comes forward.
        flex = 0.08 + stride * 1.6 * max(0.0, np.cos(turn)) ** 2
        thigh_rest = at[f"shin.{side}"] - at[f"thigh.{side}"]
        rotation[f"thigh.{side}"] = _aligning(
            thigh_rest, _direction(swing + 0.35 * flex, 0.03, sign)
        )
        shin_rest = rotation[f"thigh.{side}"] @ (at[f"foot.{side}"] - at[f"shin.{side}"])
        shin = _direction(swing - 0.65 * flex, 0.01, sign)
        rotation[f"shin.{side}"] = _aligning(shin_rest, shin) @ rotation[f"thigh.{side}"]
        rotation[f"foot.{side}"] = _axis_rotation(
            0, -0.45 * (swing - 0.65 * flex)
        ) @ _axis_rotation(2, sign * 0.1)
        held = person.bag == "handbag" and person.bag_side == side
        arm = 0.03 if held else -0.8 * swing  # a bag keeps the arm from swinging
        bend = elbow + (max(0.0, arm) * 0.5)
        upper_rest = at[f"forearm.{side}"] - at[f"upperarm.{side}"]
        rotation[f"shoulder.{side}"] = rotation["chest"] @ _axis_rotation(1, sign * 0.1)
        rotation[f"upperarm.{side}"] = rotation["chest"] @ _aligning(
            upper_rest, _direction(arm, arm_out, sign)
        )
        fore_rest = rotation[f"upperarm.{side}"] @ (at[f"hand.{side}"] - at[f"forearm.{side}"])
        fore = rotation["chest"] @ _direction(arm + bend, 0.35 * arm_out, sign)
        rotation[f"forearm.{side}"] = _aligning(fore_rest, fore) @ rotation[f"upperarm.{side}"]
        rotation[f"hand.{side}"] = rotation[f"forearm.{side}"]
    transforms, where = np.zeros((len(NAMES), 3, 4)), {}
    for i, (name, (parent, _)) in enumerate(PARTS.items()):
        where[name] = (
            at[name]
            if parent is None
            else where[parent] + rotation[parent] @ (at[name] - at[parent])
        )
        transforms[i, :, :3] = rotation[name]
        transforms[i, :, 3] = where[name] - rotation[name] @ at[name]
    return transforms.astype(np.float32)


def skin(vertices: np.ndarray, weights: np.ndarray, transforms: np.ndarray) -> np.ndarray:
    """Linear blend skinning: vertices (V, 3), weights (V, P), transforms (P, 3, 4) -> (V, 3)."""
    blended = np.einsum("vp,pk->vk", weights, transforms.reshape(len(transforms), 12)).reshape(
        -1, 3, 4
    )
    return np.einsum("vij,vj->vi", blended[:, :, :3], vertices) + blended[:, :, 3]


def normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit vertex normals (V, 3), weighted by the faces' areas."""
    a, b, c = vertices[faces[:, 0]], vertices[faces[:, 1]], vertices[faces[:, 2]]
    face = np.cross(b - a, c - a)
    sums = [
        np.bincount(faces.reshape(-1), np.repeat(values, 3), len(vertices)) for values in face.T
    ]
    result = np.stack(sums, 1)
    return result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-12)
