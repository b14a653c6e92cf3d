"""How much synthetic people are like real ones: the same statistics of both, side by side.

    python benchmarks/realism.py --market /data --draws 0 1 2 3 --synthetic demo-100
    python benchmarks/realism.py --set /data/my-people                # any set in Market's layout

Prints a table with a column a set, and writes it to benchmarks/results/realism.csv. Nothing is
trained. A draw of Market-1501 is 200 of its training people and 150 of its query people, without
distractors. Only numbers of real people are written, no pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from fusionreid import paths
from fusionreid.data import ImageCache, open_dataset, truth
from fusionreid.data.datasets import Dataset
from fusionreid.data.synthetic.build import build
from fusionreid.evaluation.baselines import COLOURS, plain_features

IMAGE_SIZE = (128, 64)
LITTLE_SEEN = 0.9  # a person of whom less than this share is seen is partly hidden


def layout(dataset: Dataset) -> dict[str, float]:
    """How many images and cameras people have."""
    train = pd.DataFrame(dataset.train, columns=["path", "identity", "camera"])
    by_camera = train.groupby(["identity", "camera"]).size()
    gallery = pd.DataFrame(dataset.gallery, columns=["path", "identity", "camera"])
    matches = []
    for _, identity, camera in dataset.query:
        same = gallery["identity"] == identity
        matches.append((same & (gallery["camera"] != camera)).sum())
    return {
        "training people": train["identity"].nunique(),
        "training images": len(train),
        "test people": len({record.identity for record in dataset.query}),
        "queries": len(dataset.query),
        "gallery images": len(dataset.gallery),
        "images a person and camera": by_camera.mean(),
        "images a person and camera, deviation": by_camera.std(),
        "cameras a person": by_camera.groupby("identity").size().mean(),
        "matches a query": float(np.mean(matches)),
    }


def sharpness(images: np.ndarray) -> np.ndarray:
    """Mean difference of each pixel and its four neighbours, of grey levels 0 to 255: (N,)."""
    grey = images.mean(axis=3)
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return np.abs(grey[:, 1:-1, 1:-1] - around / 4).mean(axis=(1, 2))


def pictures(dataset: Dataset, cache: Path) -> dict[str, float]:
    """Sharpness, brightness, contrast and colour; and how far cameras and images differ in them."""
    images = ImageCache(dataset.train, IMAGE_SIZE, cache, progress=False).images[:]
    values = images.astype(np.float32)
    channels = values.mean(axis=(1, 2))
    frame = pd.DataFrame(
        {
            "sharpness": sharpness(values),
            "brightness": channels.mean(axis=1),
            "contrast": values.mean(axis=3).std(axis=(1, 2)),
            "saturation": np.ptp(values, axis=3).mean(axis=(1, 2)),
            "red less green": channels[:, 0] - channels[:, 1],
            "blue less green": channels[:, 2] - channels[:, 1],
        }
    )
    cameras = [record.camera for record in dataset.train]
    statistics = {}
    for name, column in frame.items():
        by_camera = column.groupby(cameras)
        statistics[name] = column.mean()
        statistics[f"{name}, between cameras"] = by_camera.mean().std()
        statistics[f"{name}, inside a camera"] = by_camera.std().mean()
    return statistics


def known(dataset: Dataset) -> dict[str, float]:
    """What only the table of attributes of a rendered set tells: hidden people, errors of boxes."""
    if not truth.has_truth(dataset):
        return {}
    table = truth.attributes(dataset.train)
    statistics = {
        "partly hidden": (table["visible"] < LITTLE_SEEN).mean(),
        "something in front": (table["occluder"] != "").mean(),
    }
    for name in ("box_height", "box_right", "box_down"):
        if name in table:
            statistics[f"{name}, mean"] = table[name].mean()
            statistics[f"{name}, deviation"] = table[name].std()
    return statistics


def plain_colours(dataset: Dataset, cache: Path) -> dict[str, float]:
    """mAP and rank-1 of features that have learnt nothing, percent."""
    retrieval = plain_features(dataset, IMAGE_SIZE, cache)
    statistics = {}
    for name in ("chance", *COLOURS):
        ranking = retrieval.rank(name)
        statistics[f"{name}, mAP"] = 100 * ranking.mAP
        statistics[f"{name}, rank-1"] = 100 * ranking.cmc[0]
    return statistics


def statistics(dataset: Dataset, cache: Path) -> dict[str, float]:
    """Every statistic of a set, by name."""
    return {
        **layout(dataset),
        **plain_colours(dataset, cache),
        **pictures(dataset, cache),
        **known(dataset),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--market", type=Path, help="the folder that holds Market-1501")
    parser.add_argument("--draws", type=int, nargs="*", default=[0, 1, 2, 3], help="of Market-1501")
    parser.add_argument("--synthetic", nargs="*", default=[], help="rendered sets, as demo-100")
    parser.add_argument(
        "--set", type=Path, nargs="*", default=[], help="folders in Market's layout"
    )
    parser.add_argument("--data", type=Path, default=paths.DATA, help="where rendered sets lie")
    parser.add_argument("--out", type=Path, default=paths.ROOT / "benchmarks/results/realism.csv")
    arguments = parser.parse_args()
    sets = {}
    if arguments.market:
        for seed in arguments.draws:
            real = open_dataset("market1501", arguments.market, size="demo", seed=seed)
            sets[f"market draw {seed}"] = real
    for name in arguments.synthetic:
        size, _, seed = name.partition("-")
        build(arguments.data, size, int(seed))
        dataset = open_dataset("synthetic", arguments.data, size=size, seed=int(seed))
        sets[f"synthetic {dataset.version}"] = dataset
    for folder in arguments.set:
        sets[folder.name] = open_dataset("synthetic", folder)
    cache = paths.cache(arguments.data)
    table = pd.DataFrame({name: statistics(dataset, cache) for name, dataset in sets.items()})
    table.index.name = "statistic"
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.out, float_format="%.3f")
    print(table.to_string(float_format="{:.2f}".format, na_rep=""))


if __name__ == "__main__":
    main()
