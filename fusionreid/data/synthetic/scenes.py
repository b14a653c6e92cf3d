"""The cameras: where each stands, what is behind the people, its light and its colours.

World axes: the camera looks along +y and down, at (0, 0, 1). People walk around the origin; a wall
stands behind them.
"""

import numpy as np

from .paint import linear, noise

GROUNDS = ("tiles", "asphalt", "grass", "cobbles", "concrete", "crossing")
WALLS = ("bricks", "shop", "hedge", "panels", "trees", "columns", "bicycles")
BALANCE = np.array([1.01, 0.985, 1.0])  # of red, green and blue in all cameras
MEAN_LIGHT = 0.17  # of the empty street, linear
HOUSE = 5  # metres of the street that one kind of wall is long


class Camera:
    """One camera, drawn at random. Colours are linear; angles in radians; lengths in metres."""

    def __init__(self, rng: np.random.Generator, ground_kind: str, wall_kinds: tuple[str, ...]):
        self.ground_kind = ground_kind
        # What stands along the street behind, each on 5 metres, over and over.
        self.wall_kinds = wall_kinds
        warm = rng.uniform(-0.03, 0.03)
        azimuth = rng.uniform(0, 2 * np.pi)
        rise = rng.uniform(0.5, 1.1)
        level = np.cos(rise)
        self.sun = np.array([np.cos(azimuth) * level, np.sin(azimuth) * level, np.sin(rise)])
        strength = rng.choice([0.3, 0.5, 0.7, 0.9])
        self.sun_colour = strength * np.array([1 + warm, 1, 1 - warm])
        self.ambient = (1.05 - 0.4 * strength) * np.array([1 - 0.6 * warm, 1, 1 + 0.6 * warm])
        # In which most people walk; 0 is towards the camera.
        heading = float(rng.choice([0.0, np.pi / 2, np.pi / 4, 3 * np.pi / 4]))
        self.headings = (heading, heading + float(np.pi))
        self.height = rng.uniform(1.9, 4.6)
        self.distance = rng.uniform(6.0, 11.0)
        self.wall = rng.uniform(2.5, 7)
        self.ground_colour = linear(rng.uniform(110, 150) + rng.uniform(-3, 3, 3))
        self.wall_colour = linear(rng.uniform(90, 160) + rng.uniform(-5, 5, 3))
        self.gain = np.exp(rng.normal(0, 0.1, 3) + rng.normal(0, 0.12)) * BALANCE
        self.contrast = rng.uniform(5.2, 7.2)  # steepness of its tone curve
        self.saturation = rng.uniform(0.45, 1.0)
        # Deviation of the blur in pixels of a picture that is 128 high.
        self.sharpness = rng.uniform(0.03, 0.22)
        self.sharpening = rng.uniform(0.3, 1.2)  # how much its edges are stressed
        # The picture is as if it was smaller by this factor.
        self.resolution = rng.uniform(0.8, 1.0)
        self.grain = rng.uniform(0.004, 0.012)  # deviation of the noise, in sRGB 0 to 1
        self.seed = int(rng.integers(2**20))

    def expose(self) -> None:
        """Sets the gain so that the empty street has the same mean light in every camera."""
        u, v = (grid.reshape(-1) for grid in np.mgrid[-0.1:0.1:12j, -0.15:0.15:12j])
        means = [background(self, u, v, street)[0].mean() for street in range(0, 60, 4)]
        self.gain = self.gain * MEAN_LIGHT / np.mean(means)

    @property
    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,), and rotation (3, 3) with rows right, down and forward."""
        position = np.array([0, -self.distance, self.height])
        right = np.array([1.0, 0, 0])
        forward = np.array([0, 0, 1.0]) - position
        forward /= np.linalg.norm(forward)
        down = np.cross(forward, right)
        return position, np.stack([right, down, forward])

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points (N, 3) -> image plane at distance 1 (N, 2), and depth (N,)."""
        position, rotation = self.axes
        seen = np.einsum("nj,ij->ni", points - position, rotation)
        depth = seen[:, 2]
        return seen[:, :2] / np.maximum(depth[:, None], 1e-6), depth


def cameras(seed: int) -> list[Camera]:
    """The benchmark's six cameras, the same for every size of one seed."""
    rng = np.random.default_rng([seed, 3])
    grounds = rng.permutation(GROUNDS).tolist()
    walls = rng.permutation(WALLS).tolist()
    six = []
    for index, ground in enumerate(grounds):
        kinds = [walls[(index + step) % len(walls)] for step in (0, 1, 3)]
        camera = Camera(rng, ground, tuple(kinds))
        camera.expose()
        six.append(camera)
    return six


# From here on the coordinates of points are columns (N, 1), and so are shades and masks: a shade
# times a colour (3,) is a colour for each point (N, 3).


def _cells(u, v, seed) -> np.ndarray:
    """One random number for each whole cell of u, v: (N, 1), 0 to 1."""
    return noise(np.floor(u) + 0.5, np.floor(v) + 0.5, seed=seed)


def _ground(camera: Camera, x, y) -> np.ndarray:
    """Colour of the ground at x, y: (N, 3)."""
    seed = camera.seed
    rough = 0.3 * noise(x * 0.7, y * 0.7, seed=seed)
    fine = 0.2 * noise(x * 25, y * 25, seed=seed)
    shade = 0.75 + rough + fine
    colour = camera.ground_colour * shade
    kind = camera.ground_kind
    if kind in ("tiles", "cobbles"):
        size = 0.6 if kind == "tiles" else 0.22
        row = np.floor(y / size)
        along = x / size + 0.5 * (row % 2)
        shade = 0.82 + 0.3 * _cells(along, row, seed + 1)
        is_joint = (y / size % 1 < 0.05) | (along % 1 < 0.05)
        colour = colour * np.where(is_joint, 0.62, shade)
    if kind == "asphalt":
        is_line = (np.abs(y - 1.1) < 0.07) & (x % 2.2 < 1.5)
        colour = np.where(is_line, 0.55, colour * 0.75)
    if kind == "crossing":
        is_stripe = (x % 1.1 < 0.5) & (np.abs(y) < 1.6)
        pale = 0.5 * (0.8 + 0.2 * camera.ground_colour)
        colour = np.where(is_stripe, pale, colour * 0.7)
    if kind == "grass":
        is_lawn = np.abs(y + 0.15 * np.sin(x)) > 1.0
        blades = 0.6 + 0.8 * noise(x * 30, y * 12, seed=seed)
        green = np.array([0.115, 0.125, 0.092]) * blades
        colour = np.where(is_lawn, green, colour)
    if kind == "concrete":
        is_seam = (x % 2.4 < 0.03) | (y % 2.4 < 0.03)
        colour = colour * np.where(is_seam, 0.6, 1.1)
    return colour


def _bricks(camera: Camera, colour, x, z) -> np.ndarray:
    seed = camera.seed
    row = np.floor(z / 0.1)
    u = x / 0.28 + 0.5 * (row % 2)
    shade = 0.75 + 0.5 * _cells(u, row, seed)
    is_mortar = (z / 0.1 % 1 < 0.12) | (u % 1 < 0.05)
    brick = np.array([0.24, 0.155, 0.13]) * shade + 0.2 * colour
    colour = np.where(is_mortar, 0.3, brick)
    across = x % 2.6
    is_window = (across > 0.8) & (across < 2.0) & (z > 1.0) & (z < 2.6)
    is_bar = (across < 0.88) | (across > 1.92) | (z < 1.08) | (np.abs(across - 1.4) < 0.04)
    mirrored = 0.12 * noise(x * 0.6 + z, z * 0.9, seed=seed)
    colour = np.where(is_window, np.array([0.05, 0.07, 0.09]) + mirrored, colour)
    return np.where(is_window & is_bar, 0.6, colour)


def _shop(camera: Camera, colour, x, z) -> np.ndarray:
    is_glass = (z > 0.45) & (z < 2.4) & (x % 2.0 > 0.12)
    u = x * 3.1
    v = z * 2.2
    is_thing = _cells(u, v, camera.seed) > 0.45
    hues = np.concatenate([_cells(u, v, camera.seed + k) for k in (2, 3, 4)], 1)
    hues = (0.6 * hues.mean(1, keepdims=True) + 0.4 * hues) ** 2
    colour = np.where(is_glass, 0.04 + 0.2 * hues * is_thing, colour)
    is_sign = (z > 2.4) & (z < 3.1)
    return np.where(is_sign, camera.wall_colour[[1, 2, 0]] * 0.9, colour)


def _leaves(camera: Camera, x, z) -> np.ndarray:
    seed = camera.seed
    coarse = noise(x * 9, z * 9, seed=seed) * 0.6
    leaves = coarse + noise(x * 22, z * 22, seed=seed + 1) * 0.6
    shade = 0.25 + 1.5 * leaves**2
    return np.array([0.075, 0.088, 0.062]) * shade


def _hedge(camera: Camera, colour, x, z) -> np.ndarray:
    top = 1.5 + 0.15 * noise(x * 2, z * 0, seed=camera.seed)
    is_hedge = z < top
    return np.where(is_hedge, _leaves(camera, x, z), colour * 1.1)


def _trees(camera: Camera, colour, x, z) -> np.ndarray:
    seed = camera.seed
    is_crown = z + 1.6 * noise(x * 0.9, z * 0.5, seed=seed) > 2.2
    is_trunk = np.abs(x % 2.3 - 1.15 + 0.05 * np.sin(z * 3)) < 0.13
    shade = 0.6 + 0.7 * noise(x * 3, z * 8, seed=seed)
    shrubs = np.array([0.12, 0.14, 0.085]) * shade
    colour = np.where(is_trunk, np.array([0.07, 0.05, 0.035]), shrubs)
    return np.where(is_crown, _leaves(camera, x, z) * 1.3, colour)


def _panels(camera: Camera, colour, x, z) -> np.ndarray:
    is_seam = (x % 1.5 < 0.04) | (z % 1.2 < 0.04)
    shade = 0.85 + 0.25 * _cells(x / 1.5, z / 1.2, camera.seed)
    colour = colour * np.where(is_seam, np.float32(0.55), shade)
    is_door = (np.abs(x % 6 - 3) < 0.6) & (z < 2.2)
    return np.where(is_door, camera.wall_colour[[2, 0, 1]] * 0.45, colour)


def _columns(camera: Camera, colour, x, z) -> np.ndarray:
    dark = 0.5 + 0.2 * noise(x * 2, z * 2, seed=camera.seed)
    across = x % 2.2 / 0.55
    roundness = np.sqrt(np.clip(1 - (2 * across - 1) ** 2, 0, 1))
    shade = 0.35 + 0.75 * roundness
    is_column = across < 1
    return np.where(is_column, camera.wall_colour * shade, colour * dark)


def _bicycles(camera: Camera, colour, x, z) -> np.ndarray:
    """A row of parked bicycles before a wall: two wheels and a frame on each 1.2 metres."""
    number = np.floor(x / 1.2)
    across = x % 1.2
    wheel = np.abs(across - 0.6) - 0.35  # from the middle of the nearer wheel
    radius = np.hypot(wheel, z - 0.34)
    is_tyre = np.abs(radius - 0.31) < 0.025
    is_tube = (np.abs(z - 0.34 - 0.9 * np.abs(across - 0.5)) < 0.025) & (z < 0.85)
    is_bar = (np.abs(z - 0.82) < 0.025) & (np.abs(across - 0.6) < 0.3)
    hue = _cells(x / 1.2, 0 * z, camera.seed + 5)
    pale = 0.5 * (number % 2) + 0.1
    frame = np.where(hue > 0.4, pale, np.array([0.3, 0.1, 0.05]))
    colour = np.where(is_tyre, 0.03, colour)
    return np.where(is_tube | is_bar, frame.astype(np.float32), colour)


PAINTERS = {
    "bricks": _bricks,
    "shop": _shop,
    "hedge": _hedge,
    "trees": _trees,
    "panels": _panels,
    "columns": _columns,
    "bicycles": _bicycles,
}


def _wall(camera: Camera, kind: str, x, z) -> np.ndarray:
    """Colour of what stands behind, at x and height z: (N, 3)."""
    shade = 0.85 + 0.3 * noise(x * 0.8, z * 0.8, seed=camera.seed)
    colour = camera.wall_colour * shade
    colour = PAINTERS[kind](camera, colour, x, z)
    dirt = 0.75 + 0.25 * np.clip(z / 0.5, 0, 1)  # darker towards the ground
    return colour * dirt


def background(
    camera: Camera, u: np.ndarray, v: np.ndarray, street: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The empty scene at u, v (N,), coordinates on the image plane at distance 1.

    `street` is the stretch of the street that is seen, metres. Returns the linear colour (N, 3) in
    the scene's light; the point (N, 2) on the ground; whether it is ground (N,).
    """
    position, rotation = camera.axes
    right, down, forward = rotation
    ray = u[:, None] * right + v[:, None] * down + forward
    to_ground = -position[2] / np.minimum(ray[:, 2], -1e-6)
    to_wall = (camera.wall - position[1]) / np.maximum(ray[:, 1], 1e-6)
    is_ground = (ray[:, 2] < 0) & (to_ground < to_wall)
    x = position[0] + to_ground * ray[:, 0]
    y = position[1] + to_ground * ray[:, 1]
    wall_x = position[0] + to_wall * ray[:, 0]
    wall_z = position[2] + to_wall * ray[:, 2]
    light_up = camera.ambient + camera.sun_colour * max(camera.sun[2], 0)
    light_wall = camera.ambient * 0.8 + camera.sun_colour * max(-camera.sun[1], 0.1)
    colour = np.empty((len(u), 3), np.float32)
    ground = _ground(camera, x[is_ground, None] + street, y[is_ground, None])
    colour[is_ground] = ground * light_up
    # One house, hedge or row of trees follows the other along the street.
    number = np.floor((wall_x + street) / HOUSE).astype(int) % len(camera.wall_kinds)
    house = np.where(is_ground, -1, number)
    for index, kind in enumerate(camera.wall_kinds):
        here = house == index
        if here.any():
            wall = _wall(camera, kind, wall_x[here, None] + street, wall_z[here, None])
            colour[here] = wall * light_wall
    return colour, np.stack([x, y], 1), is_ground
