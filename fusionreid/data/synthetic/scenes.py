"""The cameras of the synthetic benchmark: where each stands, what is behind the people, its light and its colours.

World axes: the camera looks along +y and down, at (0, 0, 1); people walk around the origin; a wall stands behind them.
"""

import numpy as np

from .paint import linear, noise

GROUNDS = ("tiles", "asphalt", "grass", "cobbles", "concrete", "crossing")
WALLS = ("bricks", "shop", "hedge", "panels", "trees", "columns")


class Camera:
    """One camera, drawn at random. Colours are linear; angles in radians; lengths in metres."""

    def __init__(self, rng: np.random.Generator, ground_kind: str, wall_kinds: tuple[str, ...]):
        self.ground_kind = ground_kind
        self.wall_kinds = (
            wall_kinds  # what stands along the street behind, each on 5 metres, over and over
        )
        warm = rng.uniform(-0.07, 0.07)
        azimuth, rise = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.1)
        self.sun = np.array(
            [np.cos(azimuth) * np.cos(rise), np.sin(azimuth) * np.cos(rise), np.sin(rise)]
        )
        strength = rng.choice([0.3, 0.5, 0.7, 0.9])
        self.sun_colour = strength * np.array([1 + warm, 1, 1 - warm])
        self.ambient = (1.05 - 0.4 * strength) * np.array([1 - 0.6 * warm, 1, 1 + 0.6 * warm])
        heading = float(rng.choice([0.0, np.pi / 2, np.pi / 4, 3 * np.pi / 4]))
        self.headings = (
            heading,
            heading + float(np.pi),
        )  # in which most people walk; 0 is towards the camera
        self.height, self.distance, self.wall = (
            rng.uniform(1.9, 4.6),
            rng.uniform(6.0, 11.0),
            rng.uniform(2.5, 7),
        )
        self.ground_colour = linear(rng.uniform(110, 150) + rng.uniform(-9, 9, 3))
        self.wall_colour = linear(rng.uniform(90, 160) + rng.uniform(-14, 14, 3))
        self.gain = np.exp(rng.normal(0, 0.07, 3)) * np.exp(rng.normal(0.15, 0.1))
        self.contrast, self.saturation = rng.uniform(0.92, 1.12), rng.uniform(0.75, 1.0)
        self.sharpness = rng.uniform(
            0.2, 0.6
        )  # deviation of the blur in pixels of a picture 128 high
        self.resolution = rng.uniform(
            0.75, 1.0
        )  # the picture is as if it was smaller by this factor
        self.grain = rng.uniform(0.005, 0.018)  # deviation of the noise, in sRGB 0 to 1
        self.seed = int(rng.integers(2**20))

    @property
    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,), and rotation (3, 3) with rows right, down and forward."""
        position, right = np.array([0, -self.distance, self.height]), np.array([1.0, 0, 0])
        forward = np.array([0, 0, 1.0]) - position
        forward /= np.linalg.norm(forward)
        return position, np.stack([right, np.cross(forward, right), forward])

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points (N, 3) -> image plane at distance 1 (N, 2), and depth (N,)."""
        position, rotation = self.axes
        seen = np.einsum("nj,ij->ni", points - position, rotation)
        return seen[:, :2] / np.maximum(seen[:, 2:], 1e-6), seen[:, 2]


def cameras(seed: int) -> list[Camera]:
    """The benchmark's six cameras, the same for every size of one seed."""
    rng = np.random.default_rng([seed, 3])
    grounds, walls = rng.permutation(GROUNDS).tolist(), rng.permutation(WALLS).tolist()
    return [
        Camera(rng, grounds[i], tuple(walls[(i + k) % len(walls)] for k in (0, 1, 3)))
        for i in range(6)
    ]


def _ground(camera: Camera, x, y) -> np.ndarray:
    """Colour of the ground at x, y: (N, 3)."""
    s = camera.seed
    shade = 0.75 + 0.3 * noise(x * 0.7, y * 0.7, seed=s) + 0.2 * noise(x * 25, y * 25, seed=s)
    colour = camera.ground_colour * shade[:, None]
    kind = camera.ground_kind
    if kind in ("tiles", "cobbles"):
        size = 0.6 if kind == "tiles" else 0.22
        row = np.floor(y / size)
        column = np.floor(x / size + 0.5 * (row % 2))
        shade = 0.82 + 0.3 * noise(column + 0.5, row + 0.5, seed=s + 1)
        joint = (y / size % 1 < 0.05) | ((x / size + 0.5 * (row % 2)) % 1 < 0.05)
        colour = colour * np.where(joint, 0.62, shade)[:, None]
    if kind == "asphalt":
        colour = colour * 0.75
        colour[(np.abs(y - 1.1) < 0.07) & (x % 2.2 < 1.5)] = 0.55
    if kind == "crossing":
        colour = colour * 0.7
        colour[(x % 1.1 < 0.5) & (np.abs(y) < 1.6)] = 0.5 * (0.8 + 0.2 * camera.ground_colour)
    if kind == "grass":
        lawn = np.abs(y + 0.15 * np.sin(x)) > 1.0
        blades = 0.6 + 0.8 * noise(x * 30, y * 12, seed=s)
        colour = np.where(lawn[:, None], np.array([0.11, 0.135, 0.07]) * blades[:, None], colour)
    if kind == "concrete":
        colour = colour * np.where((x % 2.4 < 0.03) | (y % 2.4 < 0.03), 0.6, 1.1)[:, None]
    return colour


def _wall(camera: Camera, kind: str, x, z) -> np.ndarray:
    """Colour of what stands behind, at x and height z: (N, 3)."""
    s = camera.seed
    colour = camera.wall_colour * (0.85 + 0.3 * noise(x * 0.8, z * 0.8, seed=s))[:, None]
    if kind == "bricks":
        row = np.floor(z / 0.1)
        u = x / 0.28 + 0.5 * (row % 2)
        shade = 0.75 + 0.5 * noise(np.floor(u) + 0.5, row + 0.5, seed=s)
        mortar = (z / 0.1 % 1 < 0.12) | (u % 1 < 0.05)
        colour = np.where(
            mortar[:, None], 0.3, np.array([0.3, 0.12, 0.08]) * shade[:, None] + 0.2 * colour
        )
        window = (x % 2.6 > 0.8) & (x % 2.6 < 2.0) & (z > 1.0) & (z < 2.6)
        frame = window & (
            (x % 2.6 < 0.88) | (x % 2.6 > 1.92) | (z < 1.08) | (np.abs(x % 2.6 - 1.4) < 0.04)
        )
        colour[window] = (
            np.array([0.05, 0.07, 0.09]) + 0.12 * noise(x * 0.6 + z, z * 0.9, seed=s)[window, None]
        )
        colour[frame] = 0.6
    if kind == "shop":
        glass = (z > 0.45) & (z < 2.4) & (x % 2.0 > 0.12)
        things, *hues = [
            noise(np.floor(x * 3.1) + 0.5, np.floor(z * 2.2) + 0.5, seed=s + k)
            for k in (0, 2, 3, 4)
        ]
        hues = np.stack(hues, 1)
        hues = (0.6 * hues.mean(1, keepdims=True) + 0.4 * hues) ** 2
        colour = np.where(glass[:, None], 0.04 + 0.2 * hues * (things > 0.45)[:, None], colour)
        colour[(z > 2.4) & (z < 3.1)] = camera.wall_colour[[1, 2, 0]] * 0.9
    if kind in ("hedge", "trees"):
        leaves = noise(x * 9, z * 9, seed=s) * 0.6 + noise(x * 22, z * 22, seed=s + 1) * 0.6
        green = np.array([0.075, 0.1, 0.05]) * (0.25 + 1.5 * leaves**2)[:, None]
        if kind == "hedge":
            high = 1.5 + 0.15 * noise(x * 2, z * 0, seed=s)
            colour = np.where((z < high)[:, None], green, colour * 1.1)
        else:
            crown = z + 1.6 * noise(x * 0.9, z * 0.5, seed=s) > 2.2
            trunk = np.abs(x % 2.3 - 1.15 + 0.05 * np.sin(z * 3)) < 0.13
            low = np.array([0.12, 0.14, 0.085]) * (0.6 + 0.7 * noise(x * 3, z * 8, seed=s))[:, None]
            colour = np.where(trunk[:, None], np.array([0.07, 0.05, 0.035]), low)
            colour = np.where(crown[:, None], green * 1.3, colour)
    if kind == "panels":
        seam = (x % 1.5 < 0.04) | (z % 1.2 < 0.04)
        shade = 0.85 + 0.25 * noise(np.floor(x / 1.5) + 0.5, np.floor(z / 1.2) + 0.5, seed=s)
        colour = colour * np.where(seam, np.float32(0.55), shade)[:, None]
        door = (np.abs(x % 6 - 3) < 0.6) & (z < 2.2)
        colour[door] = camera.wall_colour[[2, 0, 1]] * 0.45
    if kind == "columns":
        colour = colour * (0.5 + 0.2 * noise(x * 2, z * 2, seed=s))[:, None]
        across = x % 2.2 / 0.55
        round_ = np.sqrt(np.clip(1 - (2 * across - 1) ** 2, 0, 1))
        colour = np.where(
            (across < 1)[:, None], camera.wall_colour * (0.35 + 0.75 * round_)[:, None], colour
        )
    return colour * (0.75 + 0.25 * np.clip(z / 0.5, 0, 1))[:, None]


def background(
    camera: Camera, u: np.ndarray, v: np.ndarray, street: float
) -> tuple[np.ndarray, ...]:
    """The empty scene at u, v (N,), coordinates on the image plane at distance 1; `street` is the stretch seen, metres.

    Returns colour (N, 3) linear, in the scene's light; the point seen (N, 2) on the ground; whether it is ground (N,).
    """
    position, rotation = camera.axes
    ray = u[:, None] * rotation[0] + v[:, None] * rotation[1] + rotation[2]
    down = np.minimum(ray[:, 2], -1e-6)
    reach = -position[2] / down
    wall = (camera.wall - position[1]) / np.maximum(ray[:, 1], 1e-6)
    ground = (ray[:, 2] < 0) & (reach < wall)
    x, y = position[0] + reach * ray[:, 0], position[1] + reach * ray[:, 1]
    wx, wz = position[0] + wall * ray[:, 0], position[2] + wall * ray[:, 2]
    light_up = camera.ambient + camera.sun_colour * max(camera.sun[2], 0)
    light_wall = camera.ambient * 0.8 + camera.sun_colour * max(-camera.sun[1], 0.1)
    colour = np.empty((len(u), 3), np.float32)
    colour[ground] = _ground(camera, x[ground] + street, y[ground]) * light_up
    # One house, hedge or row of trees follows the other along the street.
    house = np.where(ground, -1, np.floor((wx + street) / 5).astype(int) % len(camera.wall_kinds))
    for index, kind in enumerate(camera.wall_kinds):
        here = house == index
        if here.any():
            colour[here] = _wall(camera, kind, wx[here] + street, wz[here]) * light_wall
    return colour, np.stack([x, y], 1), ground
