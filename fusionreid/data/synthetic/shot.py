"""One picture: a person in a pose, before a camera, in a box as a detector would give."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from . import body, scenes
from .garments import Figure, Mesh, has_skirt, joined, tube
from .paint import noise, paint
from .people import Person
from .render import blur, coverage, halve, rasterise
from .scenes import Camera

QUALITY = 94  # of the JPEG
EXPOSURE = 0.2  # deviation of the logarithm of the light, from picture to picture
TINT = (0.1, 0.05, 0.07)  # the same of red, green and blue, beside it
RESOLUTION = (0.35, 1.05)  # a picture is as if it was smaller by so much, at least and at most
IN_FRONT = 0.26  # share of pictures with something in front


class Walk(NamedTuple):
    """Where the person is in one picture."""

    yaw: float  # radians; 0 is towards the camera
    place: tuple[float, float]  # x, y on the ground, metres
    street: float  # which stretch of its street the camera looks at, metres
    empty: bool  # the person is left out, as in a false detection


class Subject(NamedTuple):
    """Who is photographed."""

    person: Person
    figure: Figure


class Picture(NamedTuple):
    """One picture, where the person is seen in it, and what was drawn."""

    image: Image.Image
    mask: Image.Image  # of the same size, black and white
    attributes: dict


class _Box(NamedTuple):
    """A detector's box on the image plane."""

    left: float
    top: float
    width: float
    height: float

    def pixels(self, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Points (N, 2) of the image plane in pixels of a picture of (height, width)."""
        relative = (points - [self.left, self.top]) / [self.width, self.height]
        return relative * [size[1], size[0]]

    def grid(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The points u, v of the image plane at the centres of all pixels, row by row."""
        rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
        u = self.left + (columns.reshape(-1) + 0.5) / size[1] * self.width
        v = self.top + (rows.reshape(-1) + 0.5) / size[0] * self.height
        return u, v


def _posed(
    person: Person, figure: Figure, rng: np.random.Generator, walk: Walk
) -> tuple[Mesh, float]:
    """The person somewhere on their way, standing on the ground; and the phase of the gait."""
    is_standing = rng.random() < 0.06
    pace = 0.12 if is_standing else rng.uniform(0.8, 1.1)
    stride = person.stride * pace
    phase = rng.uniform(0, 2 * np.pi)
    head = (rng.normal(0, 0.2), rng.normal(0.05, 0.08))
    transforms = body.pose(person, figure.joints, phase, stride, head)
    # What is held follows the hand without turning with it.
    hand = transforms[body.INDEX[f"hand.{person.bag_side}"]]
    follow = np.eye(3, 4)
    follow[:, 3] = hand[:, :3] @ figure.grip + hand[:, 3] - figure.grip
    transforms = np.concatenate([transforms, follow[None].astype(np.float32)])
    mesh = figure.mesh
    mesh = mesh._replace(vertices=body.skin(mesh.vertices, mesh.weights, transforms))
    if person.top == "coat" or has_skirt(person):
        mesh = joined(mesh, tube(person, mesh, figure.joints))
    cosine = np.cos(walk.yaw)
    sine = np.sin(walk.yaw)
    x, y, z = mesh.vertices.T
    turned = np.stack([cosine * x - sine * y, sine * x + cosine * y, z - z.min()], 1)
    return mesh._replace(vertices=turned + [*walk.place, 0]), phase


def _detect(points: np.ndarray, rng: np.random.Generator) -> _Box:
    """The box around points (N, 2) of the image plane, twice as high as wide, a little off."""
    low = points.min(0)
    high = points.max(0)
    tall = (high[1] - low[1]) * rng.normal(1.06, 0.075)
    centre = (low + high) / 2 + rng.normal(0, [0.045, 0.035]) * tall
    if rng.random() < 0.16:  # cut at the knees, or too large
        tall *= rng.choice([0.8, 1.25])
        centre[1] -= 0.08 * tall
    wide = max(tall / 2, 0.9 * (high[0] - low[0]))
    return _Box(centre[0] - wide / 2, centre[1] - wide, wide, 2 * wide)


def _shade(camera: Camera, albedo, normal, position, folds, attributes):
    """Light on the person: sun, sky, light from the ground. Folds of cloth bend the normals."""
    x, y, z = attributes[:, :3].astype(np.float64).T
    wrinkles = [noise(x * 16, y * 16, z * 9, seed=seed) for seed in (11, 12, 13)]
    wrinkle = np.stack(wrinkles, 1) - 0.5
    normal = normal + 0.75 * folds[:, None] * wrinkle
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    to_eye = camera.axes[0] - position
    facing = (normal * to_eye).sum(1)
    normal = np.where(facing[:, None] < 0, -normal, normal)
    sun = np.clip((normal @ camera.sun + 0.15) / 1.15, 0, 1)
    sky = 0.62 + 0.38 * normal[:, 2]
    light = sun[:, None] * camera.sun_colour + sky[:, None] * camera.ambient
    return albedo * light


def put_in_front(image, rng: np.random.Generator, camera: Camera) -> tuple[str, np.ndarray]:
    """Draws something that stands before the person; returns its name, and its pixels (H, W)."""
    height, width, _ = image.shape
    light = camera.ambient + 0.4 * camera.sun_colour
    rows, columns = np.mgrid[0:height, 0:width] / height
    if rng.random() < 0.45:
        name = "pole"
        left = rng.uniform(0.02, 0.45)
        across = (columns - left) / rng.uniform(0.03, 0.07)
        inside = (across > 0) & (across < 1)
        roundness = np.sqrt(np.clip(1 - (2 * across - 1) ** 2, 0, 1))
        colour = rng.uniform(0.05, 0.4) * (0.4 + 0.8 * roundness)[..., None]
    else:
        top = 1 - rng.uniform(0.12, 0.32)
        name = str(rng.choice(["hedge", "wall"]))
        if name == "hedge":
            leaves = noise(columns * 30, rows * 30, seed=int(rng.integers(1000)))
            inside = rows > top + 0.05 * leaves
            colour = np.array([0.05, 0.1, 0.03]) * (0.3 + 1.6 * leaves**2)[..., None]
        else:
            inside = rows > top
            edge = np.where(rows < top + 0.02, 1.35, 1.0)
            colour = (rng.uniform(0.08, 0.4) * edge)[..., None]
    image[inside] = (colour * light)[inside]
    return name, inside


def _develop(image, camera: Camera, rng: np.random.Generator, size) -> Image.Image:
    """Linear light (H, W, 3) -> the camera's picture."""
    image = image * camera.gain * np.exp(rng.normal(0, EXPOSURE) + rng.normal(0, TINT))
    grey = image.mean(2, keepdims=True)
    image = np.clip(grey + camera.saturation * (image - grey), 0, None)
    image = image ** (1 / 2.2)
    # A tone curve as of a camera: steep in the middle, no detail lost in darks and lights.
    image = 1 / (1 + np.exp(-camera.contrast * (image - 0.5)))
    # Some are out of focus, moved, or far away.
    unsharp = np.exp(np.abs(rng.normal(0, 0.7)))
    resolution = camera.resolution * rng.uniform(*RESOLUTION)
    image = blur(image, camera.sharpness * unsharp * size[0] / 128)
    image = image + camera.sharpening * (image - blur(image, size[0] / 128))
    picture = Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))
    if resolution < 0.95:
        width = max(8, round(size[1] * resolution))
        height = max(16, round(size[0] * resolution))
        small = picture.resize((width, height), Image.Resampling.BOX)
        picture = small.resize(size[::-1], Image.Resampling.BICUBIC)
    grey_grain = rng.normal(0, camera.grain * 255, (*size, 1))
    grain = grey_grain + rng.normal(0, camera.grain * 120, (*size, 3))
    pixels = np.asarray(picture) + grain + 0.5
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _shadow(camera: Camera, mesh: Mesh, box: _Box, on_ground, size):
    """How much light the person leaves on the ground at each pixel (N,), 0 to 1.

    That is the shadow that the sun casts, and the dark under each foot.
    """
    vertices = mesh.vertices
    cast = vertices - camera.sun / max(camera.sun[2], 0.2) * vertices[:, 2:]
    plane, depth = camera.project(cast)
    half = (size[0] // 2, size[1] // 2)
    shadow = coverage(box.pixels(plane, half), depth, mesh.faces, half)
    shadow = blur(shadow, size[0] / 256).repeat(2, 0).repeat(2, 1).reshape(-1)
    sun = camera.sun_colour.mean()
    share = sun / (sun + camera.ambient.mean())
    light = 1 - shadow * 0.85 * share
    for side in "LR":
        sole = mesh.weights[:, body.INDEX[f"foot.{side}"]] > 0.5
        foot = vertices[sole].mean(0)
        near = ((on_ground - foot[:2]) ** 2).sum(1)
        light = light * (1 - 0.6 * np.exp(-near / 0.028) * np.exp(-foot[2] / 0.15))
        light = light * (1 - 0.22 * np.exp(-near / 0.25))
    return light


def _draw_person(image, person: Person, mesh: Mesh, camera: Camera, box: _Box, size):
    """Draws the person into `image` (N, 3). Returns the mask (H, W) of 0 and 1."""
    height, width = size
    plane, depth = camera.project(mesh.vertices)
    seen = rasterise(box.pixels(plane, size), depth, mesh.faces, size)
    normals = body.normals(mesh.vertices, mesh.faces)
    of_vertices = np.concatenate([mesh.attributes, normals, mesh.vertices], 1)
    values = seen.interpolate(of_vertices, mesh.faces)
    attributes, normal, position = np.split(values, [body.ATTRIBUTES, -3], axis=1)
    albedo, folds = paint(person, mesh.layer[seen.face], attributes)
    colour = _shade(camera, albedo, normal, position, folds, attributes)
    # Darker where something nearer is close by: arms stand off the body, chins off necks.
    field = np.full(height * width, depth.max() + 0.2, np.float32)
    field[seen.pixel] = seen.depth
    around = blur(field.reshape(size), 5 * height / 256).reshape(-1)
    behind = (field - around)[seen.pixel]
    colour *= (1 - np.clip(behind * 2.5, 0, 0.4))[:, None]
    image[seen.pixel] = colour
    mask = np.zeros(size)
    mask.reshape(-1)[seen.pixel] = 1
    return mask


def photograph(
    subject: Subject,
    companion: Subject | None,
    camera: Camera,
    walk: Walk,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> Picture:
    """One picture of `size` (height, width); a companion is somebody else who is in the box."""
    twice = (2 * size[0], 2 * size[1])  # drawn larger, then halved: smooth edges
    mesh, phase = _posed(*subject, rng, walk)
    plane = camera.project(mesh.vertices)[0]
    box = _detect(plane, rng)
    image, on_ground, is_ground = scenes.background(camera, *box.grid(twice), walk.street)
    mask = np.zeros(twice)
    share = 0.0
    occluder = ""

    def draw(person: Person, posed: Mesh) -> np.ndarray:
        light = _shadow(camera, posed, box, on_ground, twice)
        image[is_ground] *= light[is_ground, None]
        return _draw_person(image, person, posed, camera, box, twice)

    if not walk.empty:
        points = box.pixels(plane, (1, 1))
        share = ((points > 0) & (points < 1)).all(1).mean()  # of the vertices: inside the box
        if companion is not None:
            aside = rng.choice([-1, 1]) * rng.uniform(0.35, 0.8)
            behind = rng.choice([-1, 1, 1]) * rng.uniform(0.3, 1.2)
            place = (walk.place[0] + aside, walk.place[1] + behind)
            other_walk = walk._replace(yaw=walk.yaw + rng.normal(0, 0.4), place=place)
            other_mesh, _ = _posed(*companion, rng, other_walk)
            if behind > 0:
                draw(companion.person, other_mesh)
        mask = draw(subject.person, mesh)
        whole = max(mask.sum(), 1)
        if companion is not None and behind < 0:
            occluder = "person"
            mask[draw(companion.person, other_mesh) > 0] = 0
        if rng.random() < IN_FRONT:
            occluder, hidden = put_in_front(image.reshape(*twice, 3), rng, camera)
            mask[hidden] = 0
        share *= mask.sum() / whole
    low = plane.min(0)
    tall = np.ptp(plane[:, 1])
    centre = (low + plane.max(0)) / 2
    drawn = {
        "yaw": _degrees(walk.yaw),
        "phase": _degrees(phase),
        "visible": round(float(share), 3),
        "occluder": occluder,
        "companion": "person" if companion is not None and not walk.empty else "",
        # The errors of the box, in heights of the person.
        "box_height": round(float(box.height / tall), 3),
        "box_right": round(float((box.left + box.width / 2 - centre[0]) / tall), 3),
        "box_down": round(float((box.top + box.height / 2 - centre[1]) / tall), 3),
    }
    picture = _develop(halve(image.reshape(*twice, 3)), camera, rng, size)
    return Picture(picture, Image.fromarray(halve(mask) > 0.5), drawn)


def _degrees(angle: float) -> float:
    """Radians in degrees from -180 to 180."""
    return round(float(np.degrees((angle + np.pi) % (2 * np.pi) - np.pi)), 1)
