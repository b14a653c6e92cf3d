"""The synthetic benchmark: rendered people, no real one among them, in Market-1501's layout and names.

Beside the pictures lie masks of the person and a table of attributes. Every identity and every picture has its own
random generator, so the files do not depend on the number of processes, and an interrupted build goes on.
"""

import io
import json
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from PIL.PngImagePlugin import PngInfo
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

    train: int  # identities, a multiple of the four of a group
    test: int  # identities, likewise
    image: tuple[int, int]  # height, width in pixels
    cameras: tuple[int, int]  # least and most that see an identity, of the six
    images: tuple[
        int, int
    ]  # least and most of an identity in one camera; in the test split one of them is the query
    distractors: int  # pictures in the gallery that match no query: of other people, or of nobody


SIZES = {
    "smoke": Size(train=4, test=4, image=(64, 32), cameras=(3, 4), images=(2, 3), distractors=4),
    "demo": Size(
        train=128, test=160, image=(128, 64), cameras=(4, 4), images=(2, 3), distractors=100
    ),
    "pretrain": Size(
        train=2400, test=80, image=(128, 64), cameras=(3, 3), images=(2, 2), distractors=0
    ),
    "full": Size(
        train=752, test=748, image=(256, 128), cameras=(4, 6), images=(2, 5), distractors=2800
    ),
}


class Shot(NamedTuple):
    """One picture to take."""

    path: str
    identity: int  # negative: a distractor
    camera: int
    index: int  # its number there

    @property
    def mask(self) -> str:
        """The file of the person's mask."""
        return f"masks/{Path(self.path).with_suffix('.png').as_posix()}"


def plan(size: Size, seed: int) -> list[Shot]:
    """Every picture of the benchmark, in order."""
    shots = []
    for identity in range(1, size.train + size.test + 1):
        rng = np.random.default_rng([seed, 4, identity])
        seen = np.sort(
            rng.choice(6, int(rng.integers(size.cameras[0], size.cameras[1] + 1)), replace=False)
        )
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
    root: str | Path = "data",
    size: str = "demo",
    seed: int = 0,
    *,
    processes: int | None = None,
    progress: bool = True,
) -> Path:
    """Renders the pictures of a benchmark (a name of `SIZES`) that are missing, by default in a process a core.

    Returns its folder, `<root>/synthetic/<size>-<seed>/`. Raises ImportError if pictures are missing and the package
    anny is not installed; OSError if the disk is full or read-only, where finished pictures stay.
    """
    one_of("size", size, list(SIZES))
    folder = Path(root) / "synthetic" / f"{size}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    shots = plan(SIZES[size], seed)
    about = json.loads(
        json.dumps({"size": size, "seed": seed, "version": RENDERER, **asdict(SIZES[size])})
    )
    finished, begun = folder / "manifest.json", folder / "building.json"
    with locked(
        folder / "building.lock"
    ):  # of several processes that want it, one renders and the others wait
        known = [read_json(mark) for mark in (finished, begun) if mark.exists()]
        if not any(about.items() <= mark.items() for mark in known):
            # Pictures of another version, or of an unknown one: never mixed with this version's.
            for sub in FOLDERS:
                for path in [
                    *(folder / sub).glob("*.jpg"),
                    *(folder / "masks" / sub).glob("*.png"),
                ]:
                    path.unlink()
            finished.unlink(missing_ok=True)
        missing = [
            item
            for item in shots
            if not ((folder / item.path).is_file() and (folder / item.mask).is_file())
        ]
        if missing or not finished.exists():
            write_json(begun, about)
            for leftover in folder.rglob(".*.*.*"):  # temporary files of a build that was killed
                leftover.unlink()
            if missing:
                _render(folder, SIZES[size], seed, missing, processes or cores(), progress)
            _write_attributes(folder, shots)
            counts = {
                sub: sum(item.path.startswith(f"{sub}/") for item in shots) for sub in FOLDERS
            }
            write_json(finished, {**about, "counts": counts})
            begun.unlink(missing_ok=True)
    return folder


def _render(
    folder: Path, size: Size, seed: int, missing: list[Shot], processes: int, progress: bool
) -> None:
    """Renders the missing pictures, one identity a task."""
    model = BodyModel()
    tasks = (
        (folder, size, seed, list(shots), (model.template, *model.of(draw(seed, identity))))
        for identity, shots in groupby(missing, lambda item: item.identity)
    )
    with tqdm(
        total=len(missing),
        desc=f"rendering {folder.name}",
        unit="image",
        disable=not bars(progress),
    ) as bar:
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
        # All that is not the person is drawn for each picture anew: nothing but the person tells who it is.
        rng = np.random.default_rng(
            [seed, 2, abs(item.identity), int(item.identity < 0), item.camera, item.index]
        )
        camera = cameras[item.camera]
        yaw = camera.headings[int(rng.integers(2))] + rng.normal(0, 0.45)
        place = (float(rng.uniform(-3.5, 3.5)), float(rng.uniform(-1.5, 1.5)))
        empty = item.identity < 0 and rng.random() < 0.3
        walk = shot.Walk(yaw, place, float(rng.uniform(0, 1000)), empty)
        picture = shot.photograph(person, figure, camera, walk, size.image, rng)
        about = PngInfo()
        drawn = {"identity": max(item.identity, 0), "camera": item.camera, **picture.attributes}
        about.add_text("attributes", json.dumps(drawn))
        with atomic_write(folder / item.mask) as temporary:
            picture.mask.save(temporary, "PNG", pnginfo=about)
        picture.image.save(
            jpeg := io.BytesIO(), "JPEG", quality=shot.QUALITY
        )  # PIL may cut a file short
        with atomic_write(folder / item.path) as temporary:
            temporary.write_bytes(jpeg.getvalue())
    return len(shots)


def _write_attributes(folder: Path, shots: list[Shot]) -> None:
    """Gathers what each mask says about its picture into `attributes.csv`."""
    rows = []
    for item in shots:
        with Image.open(folder / item.mask) as mask:
            rows.append({"file": item.path, **json.loads(mask.text["attributes"])})
    with atomic_write(folder / "attributes.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, lineterminator="\r\n")
