"""The synthetic benchmark: rendered people, in Market-1501's layout and names.

No real person is among them. Beside the pictures lie masks of the person and a table of attributes.
Every identity and every picture has its own random generator, so the files do not depend on the
number of processes, and an interrupted build goes on.
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
from ..layouts import MARKET_FOLDERS
from . import RENDERER, pairs, scenes, shot
from .body import BodyModel, Template
from .garments import dress
from .people import Person, draw

WITH_COMPANION = 0.15  # share of pictures with somebody else in the box
FEW = 200  # pictures that are rendered before other processes have started
FOLDERS = tuple(MARKET_FOLDERS.values())  # of training, queries and gallery


@dataclass(frozen=True)
class Size:
    """How much is rendered."""

    train: int  # identities; of all sizes but "smoke" a multiple of a family
    test: int  # identities, likewise
    image: tuple[int, int]  # height, width in pixels
    cameras: tuple[int, int]  # least and most that see an identity, of the six
    # Least and most of an identity in one camera; in the test split one of them is the query.
    images: tuple[int, int]
    distractors: int  # pictures in the gallery that match no query: of other people, or of nobody


SIZES = {
    "smoke": Size(train=8, test=8, image=(64, 32), cameras=(3, 4), images=(2, 3), distractors=4),
    "demo": Size(
        train=160, test=144, image=(128, 64), cameras=(4, 5), images=(2, 5), distractors=60
    ),
    "pretrain": Size(
        train=2400, test=80, image=(128, 64), cameras=(3, 3), images=(2, 2), distractors=0
    ),
    "full": Size(
        train=752, test=748, image=(256, 128), cameras=(4, 6), images=(2, 5), distractors=2800
    ),
}


@dataclass(frozen=True)
class Pairs:
    """How much of the probe is rendered; see `pairs`."""

    bases: int  # for each cue; each has three look-alikes
    image: tuple[int, int]  # height, width in pixels


SIZES |= {"probe": Pairs(bases=12, image=(128, 64)), "probe-smoke": Pairs(bases=1, image=(64, 32))}


class Shot(NamedTuple):
    """One picture to take."""

    path: str
    identity: int  # negative: a distractor
    camera: int
    index: int  # its number there

    @property
    def folder(self) -> str:
        return self.path.partition("/")[0]

    @property
    def mask(self) -> str:
        """The file of the person's mask."""
        return f"masks/{Path(self.path).with_suffix('.png').as_posix()}"

    def is_in(self, folder: Path) -> bool:
        """Whether picture and mask have been rendered."""
        return (folder / self.path).is_file() and (folder / self.mask).is_file()


def _shot(folder: str, identity: int, camera: int, index: int, frame: int = 100) -> Shot:
    """A picture by its name; `frame` is the number of the first one of this person and camera."""
    name = f"{max(identity, 0):04d}_c{camera + 1}s1_{frame + 25 * index:06d}_00.jpg"
    return Shot(f"{folder}/{name}", identity, int(camera), index)


def plan(size: Size | Pairs, seed: int) -> list[Shot]:
    """Every picture of a set, in order."""
    if isinstance(size, Pairs):
        return _plan_pairs(size, seed)
    train, query, gallery = FOLDERS
    shots = []
    for identity in range(1, size.train + size.test + 1):
        rng = np.random.default_rng([seed, 4, identity])
        number = int(rng.integers(size.cameras[0], size.cameras[1] + 1))
        for camera in np.sort(rng.choice(6, number, replace=False)):
            frame = int(rng.integers(100, 90000))
            query_index = int(rng.integers(2))
            for index in range(int(rng.integers(size.images[0], size.images[1] + 1))):
                if identity <= size.train:
                    folder = train
                else:
                    folder = query if index == query_index else gallery
                shots.append(_shot(folder, identity, camera, index, frame))
    rng = np.random.default_rng([seed, 5])
    for index in range(size.distractors):
        shots.append(_shot(gallery, -1 - index // 2, rng.integers(6), index))
    return shots


def _plan_pairs(size: Pairs, seed: int) -> list[Shot]:
    """The pictures of the probe: two of each person in one camera, queries; two in another.

    The four people of a group are seen by the same two cameras.
    """
    _, query, gallery = FOLDERS
    shots = []
    people = size.bases * len(pairs.CUES) * pairs.STRENGTHS
    for identity in range(pairs.FIRST, pairs.FIRST + people):
        rng = np.random.default_rng([seed, 8, pairs.base_of(identity)])
        for folder, camera in zip((query, gallery), rng.choice(6, 2, replace=False), strict=True):
            for index in range(2):
                shots.append(_shot(folder, identity, camera, index))
    return shots


def build(
    root: str | Path = "data",
    size: str = "demo",
    seed: int = 0,
    *,
    processes: int | None = None,
    progress: bool = True,
) -> Path:
    """Renders the pictures of a set that are missing, by default in a process a core.

    `size` is a name of `SIZES`. Returns its folder, `<root>/synthetic/<size>-<seed>/`. Raises
    ImportError if pictures are missing and the package anny is not installed; OSError if the disk
    is full or read-only, where finished pictures stay.
    """
    one_of("size", size, list(SIZES))
    folder = Path(root) / "synthetic" / f"{size}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    finished = folder / "manifest.json"
    begun = folder / "building.json"
    shots = plan(SIZES[size], seed)
    about = {"size": size, "seed": seed, "version": RENDERER, **asdict(SIZES[size])}
    about = json.loads(json.dumps(about))  # tuples become lists, as in the file
    # If several processes want the set, one renders and the others wait.
    with locked(folder / "building.lock"):
        for name in FOLDERS:  # the probe has nothing to train on
            (folder / name).mkdir(exist_ok=True)
        if not (_is_of(about, finished) or _is_of(about, begun)):
            # Pictures of another version, or of an unknown one: never mixed with this version's.
            _remove_pictures(folder)
            finished.unlink(missing_ok=True)
        missing = [item for item in shots if not item.is_in(folder)]
        if missing or not finished.exists():
            write_json(begun, about)
            for leftover in folder.rglob(".*.*.*"):  # temporary files of a build that was killed
                leftover.unlink()
            if missing:
                _render(folder, SIZES[size], seed, missing, processes or cores(), progress)
            _write_attributes(folder, seed, shots)
            folders = [item.folder for item in shots]
            counts = {name: folders.count(name) for name in FOLDERS}
            looks = list(draw(seed, 1).looks)
            write_json(finished, {**about, "counts": counts, "looks": looks})
        begun.unlink(missing_ok=True)
    return folder


def _is_of(about: dict, mark: Path) -> bool:
    """Whether the JSON file `mark` is there and says all that `about` says."""
    return mark.exists() and about.items() <= read_json(mark).items()


def _remove_pictures(folder: Path) -> None:
    for name in FOLDERS:
        for path in [*(folder / name).glob("*.jpg"), *(folder / "masks" / name).glob("*.png")]:
            path.unlink()


def _render(
    folder: Path, size: Size | Pairs, seed: int, missing: list[Shot], processes: int, progress: bool
) -> None:
    """Renders the missing pictures, one identity a task."""
    model = BodyModel()

    def tasks():
        """The arguments of `_photograph` for each identity; a body is made when it is asked for."""
        for identity, shots in groupby(missing, lambda item: item.identity):
            bodies = [model.of(_who(seed, number)) for number in (identity, _passer_by(identity))]
            yield folder, size, seed, list(shots), model.template, bodies

    with tqdm(
        total=len(missing),
        desc=f"rendering {folder.name}",
        unit="image",
        disable=not bars(progress),
    ) as bar:
        if processes == 1 or len(missing) < FEW:
            for task in tasks():
                bar.update(_photograph(*task))
            return
        with pool(processes) as executor:
            waiting = set()
            for task in tasks():
                waiting.add(executor.submit(_photograph, *task))
                # Only as many bodies are in memory as the processes will soon need.
                if len(waiting) >= 2 * processes:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    bar.update(sum(future.result() for future in done))
            for future in waiting:
                bar.update(future.result())


def _who(seed: int, identity: int) -> Person:
    """The person of this number."""
    if pairs.is_of_probe(identity):
        return pairs.draw_alike(seed, identity)
    return draw(seed, identity)


def _passer_by(identity: int) -> int:
    """The number of the stranger who is sometimes in the box with this identity."""
    identity = pairs.base_of(identity)
    return -100_000 - abs(identity) - (50_000 if identity < 0 else 0)


def _photograph(
    folder: Path, size: Size | Pairs, seed: int, shots: list[Shot], template: Template, bodies: list
) -> int:
    """Writes the pictures of one identity and returns how many.

    `bodies` are the vertices and joints of the person, and of a stranger.
    """
    identity = shots[0].identity
    subjects = []
    for number, (vertices, joints) in zip((identity, _passer_by(identity)), bodies, strict=True):
        person = _who(seed, number)
        subjects.append(shot.Subject(person, dress(person, template, vertices, joints)))
    subject, stranger = subjects
    cameras = scenes.cameras(seed)
    for item in shots:
        camera = cameras[item.camera]
        is_distractor = int(item.identity < 0)
        # In front of one camera a person walks one way, as in a tracklet.
        walker = abs(pairs.base_of(item.identity))
        way = np.random.default_rng([seed, 7, walker, is_distractor, item.camera])
        headings = (0.0, 0.0) if pairs.comes_near(item.identity) else camera.headings
        heading = headings[int(way.integers(2))] + way.normal(0, 0.4)
        # All that is not the person is drawn for each picture anew: nothing else tells who it is.
        rng = np.random.default_rng([seed, 2, walker, is_distractor, item.camera, item.index])
        yaw = heading + rng.normal(0, 0.15)
        place = (float(rng.uniform(-3.5, 3.5)), float(rng.uniform(-1.5, 1.5)))
        empty = item.identity < 0 and rng.random() < 0.3
        walk = shot.Walk(yaw, place, float(rng.uniform(0, 1000)), empty)
        companion = stranger if rng.random() < WITH_COMPANION else None
        picture = shot.photograph(subject, companion, camera, walk, size.image, rng)
        drawn = {"identity": max(item.identity, 0), "camera": item.camera, **picture.attributes}
        about = PngInfo()
        about.add_text("attributes", json.dumps(drawn))
        with atomic_write(folder / item.mask) as temporary:
            picture.mask.save(temporary, "PNG", pnginfo=about)
        jpeg = io.BytesIO()  # written in one piece, as PIL may leave a file cut short
        picture.image.save(jpeg, "JPEG", quality=shot.QUALITY)
        with atomic_write(folder / item.path) as temporary:
            temporary.write_bytes(jpeg.getvalue())
    return len(shots)


def _write_attributes(folder: Path, seed: int, shots: list[Shot]) -> None:
    """Writes `attributes.csv`: what each mask's text says, and all that is known of the person."""
    rows = []
    for identity, pictures in groupby(shots, lambda item: item.identity):
        facts = _who(seed, identity).facts
        if pairs.is_of_probe(identity):
            facts |= pairs.facts(identity)
        for item in pictures:
            with Image.open(folder / item.mask) as mask:
                drawn = json.loads(mask.text["attributes"])
            rows.append({"file": item.path, **drawn, **facts})
    with atomic_write(folder / "attributes.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, lineterminator="\r\n")
