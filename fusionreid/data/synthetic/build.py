"""The synthetic benchmark (rendered people, no real one among them), written in Market-1501's layout and names.

    python -m fusionreid.data synthetic --size demo --root data --seed 0

Every identity and every picture has a random generator of its own, so the files do not depend on the number of
processes nor on what was rendered before: an interrupted build goes on where it stopped.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ...config import DataConfig, one_of
from ...files import atomic_write, locked, read_json, write_json
from ..datasets import RENDERER
from .people import describe, draw

__all__ = ["SIZES", "Size", "build", "describe", "ensure"]

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")


@dataclass(frozen=True)
class Size:
    """How much is rendered.

    Attributes:
        image: height, width in pixels.
        cameras: least and most cameras that see an identity, of the six.
        images: least and most pictures of an identity in one camera; in the test split one of them is the query.
        distractors: pictures in the gallery of people (or of nothing) that are no query's.
    """

    train: int
    test: int
    image: tuple[int, int]
    cameras: tuple[int, int]
    images: tuple[int, int]
    distractors: int


SIZES = {
    "smoke": Size(train=4, test=4, image=(64, 32), cameras=(3, 4), images=(2, 3), distractors=4),
    "demo": Size(train=64, test=36, image=(128, 64), cameras=(5, 6), images=(3, 4), distractors=70),
    "full": Size(train=751, test=749, image=(256, 128), cameras=(4, 6), images=(2, 5), distractors=2800),
}


class Shot(NamedTuple):
    """One picture to take: its file, who (negative: a distractor), which camera, and its numbers there."""

    path: str
    identity: int
    camera: int
    track: int
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
                if identity <= size.train:
                    folder = FOLDERS[0]
                else:
                    folder = FOLDERS[1] if index == query else FOLDERS[2]
                name = f"{identity:04d}_c{camera + 1}s1_{frame + 25 * index:06d}_00.jpg"
                shots.append(Shot(f"{folder}/{name}", identity, int(camera), 0, index))
    rng = np.random.default_rng([seed, 5])
    for index in range(size.distractors):
        camera = int(rng.integers(6))
        name = f"0000_c{camera + 1}s1_{100 + 25 * index:06d}_00.jpg"
        shots.append(Shot(f"{FOLDERS[2]}/{name}", -1 - index // 2, camera, 0, index))
    return shots


def _render(root: str, size: Size, seed: int, shots: list[Shot], template, vertices, joints) -> int:
    """One identity's missing pictures; runs in a worker. Returns how many."""
    from . import scenes, shot
    from .garments import dress

    person = draw(seed, shots[0].identity)
    figure = dress(person, template, vertices, joints)
    cameras = scenes.cameras(seed)
    for item in shots:
        # What the pictures of one walk past a camera share.
        track = np.random.default_rng([seed, 6, abs(item.identity), int(item.identity < 0), item.camera])
        camera = cameras[item.camera]
        heading = camera.headings[int(track.integers(2))] + track.normal(0, 0.35)
        start = track.uniform([-3.5, -1.5], [3.5, 1.5])
        street = float(track.uniform(0, 15))
        rng = np.random.default_rng([seed, 2, abs(item.identity), int(item.identity < 0), item.camera, item.index])
        step = (item.index % 4 - 1) * rng.uniform(0.5, 0.9)
        place = (float(start[0] + step * np.sin(heading)), float(np.clip(start[1] - step * np.cos(heading), -2, 2)))
        empty = item.identity < 0 and rng.random() < 0.3
        picture = shot.photograph(
            person, figure, camera, rng, size.image, heading=heading, place=place, street=street, empty=empty
        )
        with atomic_write(Path(root) / item.path) as temporary:
            temporary.write_bytes(shot.encode(picture))
    return len(shots)


_TEMPLATE = None


def _start(template) -> None:
    """In each worker: leave Ctrl-C to the parent, and keep what all identities share."""
    global _TEMPLATE
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _TEMPLATE = template
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    """A parent that was killed cannot stop its workers: they leave by themselves."""
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)


def _work(arguments) -> int:
    root, size, seed, shots, vertices, joints = arguments
    return _render(root, size, seed, shots, _TEMPLATE, vertices, joints)


def _missing(folder: Path, shots: list[Shot]) -> list[Shot]:
    """Shots whose file is not there, or empty."""
    there = {
        f"{sub}/{entry.name}"
        for sub in FOLDERS
        if (folder / sub).is_dir()
        for entry in os.scandir(folder / sub)
        if entry.stat().st_size
    }
    return [shot for shot in shots if shot.path not in there]


def _manifest(size: str, seed: int) -> dict:
    return {"size": size, "seed": seed, "version": RENDERER, **asdict(SIZES[size])}


def build(
    root: str | Path = "data", size: str = "demo", seed: int = 0, *, workers: int | None = None, progress: bool = True
) -> Path:
    """Renders what is missing of a benchmark.

    Args:
        root: the folder of the data sets; the benchmark goes to `<root>/synthetic/<size>-<seed>/`.
        size: a name of `SIZES`.
        workers: processes, each with one thread; None is one for each core.

    Returns:
        The benchmark's folder.

    Raises:
        ImportError: anny is not installed, and pictures are missing.
        OSError: the disk is full or read-only; what is rendered stays.
    """
    one_of("size", size, list(SIZES))
    folder = Path(root) / "synthetic" / f"{size}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "building.lock"):  # of several processes that want it, one renders and the others wait
        return _build(folder, size, seed, workers, progress)


def _build(folder: Path, size: str, seed: int, workers: int | None, progress: bool) -> Path:
    shots = plan(SIZES[size], seed)
    expected = _json_like(_manifest(size, seed))
    marks = [folder / "manifest.json", folder / "building.json"]
    known = [_json_like({k: read_json(mark).get(k) for k in expected}) for mark in marks if mark.exists()]
    if expected not in known:
        # Pictures of another version, or of none: never mixed with this one's.
        for sub in FOLDERS:
            for path in (folder / sub).glob("*.jpg"):
                path.unlink()
        marks[0].unlink(missing_ok=True)
    missing = _missing(folder, shots)
    if marks[0].exists() and not missing:
        return folder
    if missing:
        write_json(marks[1], expected)
        _run(folder, size, seed, missing, workers, progress)
    counts = {sub: sum(shot.path.startswith(f"{sub}/") for shot in shots) for sub in FOLDERS}
    write_json(marks[0], {**expected, "counts": counts})
    marks[1].unlink(missing_ok=True)
    return folder


def _json_like(value: dict) -> dict:
    return {key: list(item) if isinstance(item, tuple) else item for key, item in value.items()}


def _run(folder: Path, size: str, seed: int, missing: list[Shot], workers: int | None, progress: bool) -> None:
    """Renders `missing`, an identity a task, in worker processes that need neither torch nor anny."""
    from ...processes import bars, cores
    from .body import BodyModel

    model = BodyModel()
    groups: dict[int, list[Shot]] = {}
    for shot in missing:
        groups.setdefault(shot.identity, []).append(shot)
    workers = max(1, min(workers or cores(), len(groups)))
    # Forked workers start at once and run no script again; they use numpy and PIL alone.
    context = multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")
    bar = tqdm(total=len(missing), desc=f"rendering {folder.name}", unit="image", disable=not bars(progress))
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(model.template,))
    try:
        with bar, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # "fork in a process with threads"
            waiting = set()
            for identity, shots in groups.items():
                vertices, joints = model.shape(**draw(seed, identity).shape)
                waiting.add(pool.submit(_work, (str(folder), SIZES[size], seed, shots, vertices, joints)))
                while len(waiting) >= 2 * workers:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    bar.update(sum(future.result() for future in done))
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                bar.update(sum(future.result() for future in done))
    except BaseException:
        # Those at work end their picture or identity; no file is half written.
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()


def ensure(config: DataConfig, root: str | Path = "data", *, progress: bool = True) -> Path:
    """The folder of the synthetic set that `config` names, rendered if it is not there."""
    root = Path(root)
    if (root / FOLDERS[0]).is_dir():
        return root
    return build(root, config.size, config.seed, progress=progress)
