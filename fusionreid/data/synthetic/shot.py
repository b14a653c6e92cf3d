"""One picture of the synthetic benchmark: a person in a pose, before a camera, in a box as a detector would give."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from . import body, scenes
from .garments import TUBE, Figure, tube
from .paint import noise, paint
from .people import GAITS, Person
from .render import blur, coverage, halve, rasterise
from .scenes import Camera

QUALITY = 94
EXPOSURE, TINT = (
    0.12,
    0.04,
)  # deviations, from picture to picture, of the logarithm of the light and of its colours


def _posed(person: Person, figure: Figure, rng: np.random.Generator, yaw: float):
    """The person somewhere on their way, standing on the ground: vertices, faces, layers, attributes, gait phase."""
    still = rng.random() < 0.06
    stride = GAITS[person.gait][0] * (0.12 if still else rng.uniform(0.8, 1.1))
    phase = rng.uniform(0, 2 * np.pi)
    transforms = body.pose(
        person, figure.joints, phase, stride, (rng.normal(0, 0.2), rng.normal(0.05, 0.08))
    )
    hand = transforms[body.INDEX[f"hand.{person.bag_side}"]]
    follow = np.eye(3, 4)
    follow[:, 3] = hand[:, :3] @ figure.grip + hand[:, 3] - figure.grip
    transforms = np.concatenate([transforms, follow[None].astype(np.float32)])
    vertices = body.skin(figure.vertices, figure.weights, transforms)
    faces, layer, attributes = figure.faces, figure.layer, figure.attributes
    if person.top == "coat" or "skirt" in person.bottom:
        cloth, cloth_faces, cloth_attributes = tube(person, figure, vertices)
        faces = np.concatenate([faces, cloth_faces + len(vertices)])
        vertices = np.concatenate([vertices, cloth])
        layer = np.concatenate([layer, np.full(len(cloth_faces), TUBE, np.uint8)])
        attributes = np.concatenate([attributes, cloth_attributes])
    c, s = np.cos(yaw), np.sin(yaw)
    x, y, z = vertices.T
    return np.stack([c * x - s * y, s * x + c * y, z - z.min()], 1), faces, layer, attributes, phase


def _box(points: np.ndarray, rng: np.random.Generator):
    """A detector's box, height twice the width, on the image plane: left, top, width, height."""
    low, high = points.min(0), points.max(0)
    tall = (high[1] - low[1]) * rng.normal(1.06, 0.05)
    centre = (low + high) / 2 + rng.normal(0, [0.03, 0.025]) * tall
    if rng.random() < 0.08:  # cut at the knees, or too large
        tall *= rng.choice([0.8, 1.25])
        centre[1] -= 0.08 * tall
    wide = max(tall / 2, 0.9 * (high[0] - low[0]))
    return centre[0] - wide / 2, centre[1] - wide, wide, 2 * wide


def _shade(camera: Camera, albedo, normal, position, fold, attributes):
    """Light on the person: sun, sky, light from the ground; cloth folds bend the normals."""
    a = attributes[:, :3].astype(np.float64)
    wrinkle = (
        np.stack([noise(a[:, 0] * 16, a[:, 1] * 16, a[:, 2] * 9, seed=k) for k in (11, 12, 13)], 1)
        - 0.5
    )
    normal = normal + 0.75 * fold[:, None] * wrinkle
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    eye = camera.axes[0] - position
    facing = (normal * eye).sum(1)
    normal = np.where(facing[:, None] < 0, -normal, normal)
    sun = np.clip((normal @ camera.sun + 0.15) / 1.15, 0, 1)
    sky = 0.62 + 0.38 * normal[:, 2]
    return albedo * (sun[:, None] * camera.sun_colour + sky[:, None] * camera.ambient)


def put_in_front(image, rng: np.random.Generator, camera: Camera) -> tuple[str, np.ndarray]:
    """Draws something that stands before the person; returns its name, and its pixels (H, W)."""
    height, width, _ = image.shape
    light = camera.ambient + 0.4 * camera.sun_colour
    rows, columns = np.mgrid[0:height, 0:width] / height
    if rng.random() < 0.45:
        name = "pole"
        left, wide = rng.uniform(0.02, 0.45), rng.uniform(0.03, 0.07)
        across = (columns - left) / wide
        inside = (across > 0) & (across < 1)
        tone = rng.uniform(0.05, 0.4) * (
            0.4 + 0.8 * np.sqrt(np.clip(1 - (2 * across - 1) ** 2, 0, 1))
        )
        colour = tone[..., None]
    else:
        top = 1 - rng.uniform(0.12, 0.32)
        name = str(rng.choice(["hedge", "wall"]))
        if name == "hedge":
            leaves = noise(columns * 30, rows * 30, seed=int(rng.integers(1000)))
            inside = rows > top + 0.05 * leaves
            colour = np.array([0.05, 0.1, 0.03]) * (0.3 + 1.6 * leaves**2)[..., None]
        else:
            inside = rows > top
            colour = (rng.uniform(0.08, 0.4) * np.where(rows < top + 0.02, 1.35, 1.0))[..., None]
    image[inside] = (colour * light)[inside]
    return name, inside


def _develop(image, camera: Camera, rng: np.random.Generator, size) -> Image.Image:
    """Linear light (H, W, 3) -> the camera's picture."""
    image = image * camera.gain * np.exp(rng.normal(0, EXPOSURE) + rng.normal(0, TINT, 3))
    grey = image.mean(2, keepdims=True)
    image = np.clip(grey + camera.saturation * (image - grey), 0, None)
    image = image ** (1 / 2.2)
    image = np.clip(0.5 + camera.contrast * (image - 0.5), 0, None)
    image = np.where(
        image > 0.85, 0.85 + 0.15 * np.tanh((image - 0.85) / 0.15), image
    )  # highlights roll off
    image = blur(image, camera.sharpness * size[0] / 128)
    picture = Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))
    if camera.resolution < 0.95:
        small = (
            max(8, round(size[1] * camera.resolution)),
            max(16, round(size[0] * camera.resolution)),
        )
        picture = picture.resize(small, Image.Resampling.BOX).resize(
            size[::-1], Image.Resampling.BICUBIC
        )
    grain = rng.normal(0, camera.grain * 255, (*size, 1)) + rng.normal(
        0, camera.grain * 120, (*size, 3)
    )
    return Image.fromarray(np.clip(np.asarray(picture) + grain + 0.5, 0, 255).astype(np.uint8))


class Walk(NamedTuple):
    """Where the person is in one picture."""

    yaw: float  # radians; 0 is towards the camera
    place: tuple[float, float]  # x, y on the ground, metres
    street: float  # which stretch of its street the camera looks at, metres
    empty: bool  # the person is left out, as in a false detection


class Picture(NamedTuple):
    """One picture, where the person is seen in it, and what was drawn."""

    image: Image.Image
    mask: Image.Image  # of the same size, black and white
    attributes: dict


def photograph(
    person: Person,
    figure: Figure,
    camera: Camera,
    walk: Walk,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> Picture:
    """One picture of `size` (height, width)."""
    high, wide = 2 * size[0], 2 * size[1]
    vertices, faces, layer, attributes, phase = _posed(person, figure, rng, walk.yaw)
    vertices = vertices + [*walk.place, 0]
    plane, depth = camera.project(vertices)
    left, top, box_width, box_height = _box(plane, rng)
    rows, columns = np.mgrid[0:high, 0:wide]
    u = left + (columns.reshape(-1) + 0.5) / wide * box_width
    v = top + (rows.reshape(-1) + 0.5) / high * box_height
    image, on_ground, is_ground = scenes.background(camera, u, v, walk.street)

    def pixels(points, shape):
        return (points - [left, top]) / [box_width, box_height] * [shape[1], shape[0]]

    mask, occluder, visible = np.zeros((high, wide)), "", 0.0
    if not walk.empty:
        # The shadow that the sun casts, and the dark under each foot.
        cast = vertices - camera.sun / max(camera.sun[2], 0.2) * vertices[:, 2:]
        shape = (high // 2, wide // 2)
        plane_cast, depth_cast = camera.project(cast)
        shadow = coverage(pixels(plane_cast, shape), depth_cast, faces, shape)
        shadow = blur(shadow, high / 256).repeat(2, 0).repeat(2, 1).reshape(-1)
        sunny = camera.sun_colour.mean() / (camera.sun_colour.mean() + camera.ambient.mean())
        dark = 1 - shadow * 0.85 * sunny
        for side in "LR":
            sole = np.flatnonzero(figure.weights[:, body.INDEX[f"foot.{side}"]] > 0.5)
            foot = vertices[sole].mean(0)
            near = ((on_ground - foot[:2]) ** 2).sum(1)
            dark = dark * (1 - 0.6 * np.exp(-near / 0.028) * np.exp(-foot[2] / 0.15))
            dark = dark * (1 - 0.22 * np.exp(-near / 0.25))
        image = np.where(is_ground[:, None], image * dark[:, None], image)
        seen = rasterise(pixels(plane, (high, wide)), depth, faces, (high, wide))
        values = seen.interpolate(
            np.concatenate([attributes, body.normals(vertices, faces), vertices], 1), faces
        )
        a, normal, position = values[:, :12], values[:, 12:15], values[:, 15:]
        albedo, fold = paint(person, layer[seen.face], a)
        colour = _shade(camera, albedo, normal, position, fold, a)
        # Darker where something nearer is close by: arms stand off the body, chins off necks.
        field = np.full(high * wide, depth.max() + 0.2, np.float32)
        field[seen.pixel] = seen.depth
        behind = field - blur(field.reshape(high, wide), 5 * high / 256).reshape(-1)
        colour *= (1 - np.clip(behind[seen.pixel] * 2.5, 0, 0.4))[:, None]
        image[seen.pixel] = colour
        mask.reshape(-1)[seen.pixel] = 1
        # All of the person, on a canvas twice as high and wide, to know how much the box leaves out.
        around = coverage(
            pixels(plane, shape) + [shape[1] / 2, shape[0] / 2], depth, faces, (high, wide)
        )
        visible = mask.sum() / max(4 * around.sum(), mask.sum(), 1)
    image = image.reshape(high, wide, 3)
    if rng.random() < 0.1 and not walk.empty:
        occluder, hidden = put_in_front(image, rng, camera)
        visible *= mask[~hidden].sum() / max(mask.sum(), 1)
        mask[hidden] = 0
    yaw = round(float(np.degrees((walk.yaw + np.pi) % (2 * np.pi) - np.pi)), 1)
    drawn = {name: getattr(person, name) for name in ("group", "kind", "cue", "value")} | {
        "yaw": yaw
    }
    drawn |= {
        "phase": round(float(np.degrees(phase)), 1),
        "visible": round(float(visible), 3),
        "occluder": occluder,
    }
    where = Image.fromarray(halve(mask) > 0.5)
    return Picture(_develop(halve(image), camera, rng, size), where, drawn)
