"""The synthetic benchmark: rendered people, no real one among them, in Market-1501's layout and names.

Every identity and every picture has its own random generator. So the files do not depend on the number of processes
nor on what was rendered before, and an interrupted build goes on where it stopped.
"""

from __future__ import annotations

import json
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ...config import one_of
from ...files import atomic_write, locked, read_json, write_json
from ...processes import bars, cores, pool
from . import RENDERER, scenes, shot
from .body import BodyModel
from .garments import dress
from .people import draw

FEW = 200  # pictures that are rendered before other processes have started
FOLDERS = ("bounding_box_train", "query", "bounding_box_test")


@dataclass(frozen=True)
class Size:
    """How much is rendered."""

    train: int  # identities
    test: int  # identities
    image: tuple[int, int]  # height, width in pixels
    cameras: tuple[int, int]  # least and most that see an identity, of the six
    images: tuple[int, int]  # least and most of an identity in one camera; in the test split one of them is the query
    distractors: int  # pictures in the gallery that match no query: of other people, or of nobody


SIZES = {
    "smoke": Size(train=4, test=4, image=(64, 32), cameras=(3, 4), images=(2, 3), distractors=4),
    "demo": Size(train=64, test=36, image=(128, 64), cameras=(5, 6), images=(3, 4), distractors=70),
    "full": Size(train=751, test=749, image=(256, 128), cameras=(4, 6), images=(2, 5), distractors=2800),
}


class Shot(NamedTuple):
    """One picture to take: its file, the identity (negative: a distractor), the camera, and its number there."""

    path: str
    identity: int
    camera: int
    index: int


def plan(size: Size, seed: int) -> list[Shot]:
    """Every picture of the benchmark, in order."""
    shots = []
    for identity in range(1, size.train + size.test + 1):
        rng = np.random.default_rng([seed, 4, identity])
        seen = np.sort(rng.choice(6, int(rng.integers(size.cameras[0], size.cameras[1] + 1)), replace=False))
        for camera in seen:
            frame = int(rng.integers(100, 90000))
            query = int(rng.integers(2))
            for index in range(int(rng.integers(size.images[0], size.images[1] + 1))):
                test = FOLDERS[1] if index == query else FOLDERS[2]
                folder = FOLDERS[0] if identity <= size.train else test
                name = f"{identity:04d}_c{camera + 1}s1_{frame + 25 * index:06d}_00.jpg"
                shots.append(Shot(f"{folder}/{name}", identity, int(camera), index))
    rng = np.random.default_rng([seed, 5])
    for index in range(size.distractors):
        camera = int(rng.integers(6))
        name = f"0000_c{camera + 1}s1_{100 + 25 * index:06d}_00.jpg"
        shots.append(Shot(f"{FOLDERS[2]}/{name}", -1 - index // 2, camera, index))
    return shots


def build(
    root: str | Path = "data", size: str = "demo", seed: int = 0, *, processes: int | None = None, progress: bool = True
) -> Path:
    """Renders the pictures of a benchmark that are missing.

    Args:
        root: the folder of the data sets; the benchmark goes to `<root>/synthetic/<size>-<seed>/`.
        size: a name of `SIZES`.
        processes: each has one thread; None is one for each core.

    Returns:
        The benchmark's folder.

    Raises:
        ImportError: pictures are missing, and the package anny is not installed.
        OSError: the disk is full or read-only. Finished pictures stay.
    """
    one_of("size", size, list(SIZES))
    folder = Path(root) / "synthetic" / f"{size}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    shots = plan(SIZES[size], seed)
    about = json.dumps({"size": size, "seed": seed, "version": RENDERER, **asdict(SIZES[size])})
    about = json.loads(about)  # tuples have become lists, as in a file
    finished, begun = folder / "manifest.json", folder / "building.json"
    with locked(folder / "building.lock"):  # of several processes that want it, one renders and the others wait
        known = [read_json(mark) for mark in (finished, begun) if mark.exists()]
        if not any(about.items() <= mark.items() for mark in known):
            # Pictures of another version, or of an unknown one: never mixed with this version's.
            for sub in FOLDERS:
                for path in (folder / sub).glob("*.jpg"):
                    path.unlink()
            finished.unlink(missing_ok=True)
        missing = [item for item in shots if not (folder / item.path).is_file()]
        if missing or not finished.exists():
            write_json(begun, about)
            if missing:
                _render(folder, SIZES[size], seed, missing, processes or cores(), progress)
            counts = {sub: sum(item.path.startswith(f"{sub}/") for item in shots) for sub in FOLDERS}
            write_json(finished, {**about, "counts": counts})
            begun.unlink(missing_ok=True)
    return folder


def _render(folder: Path, size: Size, seed: int, missing: list[Shot], processes: int, progress: bool) -> None:
    """Renders the missing pictures, one identity a task."""
    identities: dict[int, list[Shot]] = {}
    for item in missing:
        identities.setdefault(item.identity, []).append(item)
    model = BodyModel()
    tasks = (
        (folder, size, seed, shots, (model.template, *model.shape(**draw(seed, identity).shape)))
        for identity, shots in identities.items()
    )
    with tqdm(total=len(missing), desc=f"rendering {folder.name}", unit="image", disable=not bars(progress)) as bar:
        if processes == 1 or len(missing) < FEW:
            for task in tasks:
                bar.update(_photograph(*task))
            return
        with pool(processes) as executor:
            waiting = set()
            for task in tasks:  # bodies are made when a process will soon need them
                waiting.add(executor.submit(_photograph, *task))
                if len(waiting) >= 2 * processes:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    bar.update(sum(future.result() for future in done))
            for future in waiting:
                bar.update(future.result())


def _photograph(folder: Path, size: Size, seed: int, shots: list[Shot], body: tuple) -> int:
    """Writes the pictures of one identity and returns how many; `body` is template, vertices and joints."""
    person = draw(seed, shots[0].identity)
    figure = dress(person, *body)
    cameras = scenes.cameras(seed)
    for item in shots:
        who = [abs(item.identity), int(item.identity < 0), item.camera]
        # What the pictures of one walk past a camera share.
        track = np.random.default_rng([seed, 6, *who])
        camera = cameras[item.camera]
        heading = camera.headings[int(track.integers(2))] + track.normal(0, 0.35)
        start = track.uniform([-3.5, -1.5], [3.5, 1.5])
        street = float(track.uniform(0, 15))
        rng = np.random.default_rng([seed, 2, *who, item.index])
        step = (item.index % 4 - 1) * rng.uniform(0.5, 0.9)
        place = (float(start[0] + step * np.sin(heading)), float(np.clip(start[1] - step * np.cos(heading), -2, 2)))
        empty = item.identity < 0 and rng.random() < 0.3
        walk = shot.Walk(heading, place, street, empty)
        picture = shot.photograph(person, figure, camera, walk, size.image, rng)
        with atomic_write(folder / item.path) as temporary:
            picture.save(temporary, "JPEG", quality=shot.QUALITY)
    return len(shots)
