"""Images a second and core: decoding and augmenting one by one, beside the decoded cache.

Both give the same training batches of 128 images at 256 x 128: resize (bicubic), flip, padded
crop, normalise, erase. One by one is the usual pipeline of torchvision's transforms. Times are CPU
seconds of one thread, so that other programs on the machine count little. The methods take turns;
a row gives the median, least and most of the repetitions.

    python benchmarks/feeding.py            # writes benchmarks/results/feeding.csv
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measure import RESULTS, machine
from PIL import Image
from torchvision import transforms

from fusionreid.data import Augment, ImageCache, normalise

SIZE = (256, 128)
BATCH = 128
# Height and width of the files. Market-1501's are all 128 x 64; those of DukeMTMC-reID and MSMT17
# vary, and these are usual ones. At 256 x 128 nothing is resized, which spares the usual pipeline a
# third of its work.
SOURCES = {
    "128 x 64, as Market-1501": (128, 64),
    "240 x 110, as DukeMTMC-reID": (240, 110),
    "320 x 140, as MSMT17": (320, 140),
    "256 x 128, not resized": (256, 128),
}


def write_files(folder: Path, count: int, height: int, width: int) -> list[Path]:
    """JPEG files of smooth colours and some noise, about as large as pictures of people."""
    random = np.random.default_rng(0)
    files = []
    for index in range(count):
        colours = Image.fromarray(random.integers(0, 256, (16, 8, 3), np.uint8))
        smooth = np.asarray(colours.resize((width, height), Image.BICUBIC))
        noisy = smooth + random.normal(0, 6, (height, width, 3))
        file = folder / f"{height}x{width}_{index:04d}.jpg"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, quality=90)
        files.append(file)
    return files


def usual_pipeline(random: bool) -> transforms.Compose:
    """Resize, flip, pad, crop, to tensor, normalise, erase; or without the random steps."""
    resize = transforms.Resize(SIZE, transforms.InterpolationMode.BICUBIC)
    tensor = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    if not random:
        return transforms.Compose([resize, *tensor])
    crop = [transforms.RandomHorizontalFlip(), transforms.Pad(10), transforms.RandomCrop(SIZE)]
    erase = transforms.RandomErasing(0.5, scale=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3), value="random")
    return transforms.Compose([resize, *crop, *tensor, erase])


def one_by_one(files: list[Path], pipeline, indices: np.ndarray) -> torch.Tensor:
    images = [Image.open(files[index]).convert("RGB") for index in indices]
    return torch.stack([pipeline(image) for image in images])


def batched(cache: ImageCache, augment: Augment, generator, indices: np.ndarray) -> torch.Tensor:
    return augment(cache.batch(indices), generator)


def measure(methods: dict, batches: list[np.ndarray], repetitions: int) -> dict[str, list[float]]:
    """Images a CPU second of each method, `repetitions` times, in turns."""
    images = sum(len(batch) for batch in batches)
    rates = {name: [] for name in methods}
    for repetition in range(repetitions + 1):
        for name, method in methods.items():
            start = time.thread_time()
            for indices in batches:
                method(indices)
            seconds = time.thread_time() - start
            if repetition > 0:  # the first warms up
                rates[name].append(images / seconds)
    return rates


def rows_of(source: str, folder: Path, given: argparse.Namespace) -> list[dict]:
    """A row for each method, with files of one size."""
    files = write_files(folder, given.images, *SOURCES[source])
    cache = ImageCache(files, SIZE, folder / "cache", interpolation="bicubic")
    first = np.arange(32)
    plain = one_by_one(files, usual_pipeline(random=False), first)
    difference = (plain - normalise(cache.batch(first))).abs().max().item()
    assert difference < 1e-6  # without the random steps both give the same images

    random = np.random.default_rng(1)
    batches = [random.integers(0, given.images, BATCH) for _ in range(given.batches)]
    generator = torch.Generator().manual_seed(0)
    methods = {
        "one by one": partial(one_by_one, files, usual_pipeline(random=True)),
        "cache, batched": partial(batched, cache, Augment(), generator),
        "cache, reading only (a GPU augments)": cache.batch,
    }
    rates = measure(methods, batches, given.repetitions)
    usual = np.array(rates["one by one"])
    rows = []
    for name, values in rates.items():
        ratios = np.array(values) / usual
        middle = statistics.median(values)
        rows.append(
            {
                "files": source,
                "method": name,
                "images_per_second_core": round(middle),
                "least": round(min(values)),
                "most": round(max(values)),
                "times_one_by_one": round(middle / statistics.median(usual), 1),
                "times_least": round(ratios.min(), 1),
                "times_most": round(ratios.max(), 1),
                "deterministic_difference": f"{difference:.1e}",
                "repetitions": given.repetitions,
                "torch": torch.__version__,
                "processor": machine(),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512, help="files of each kind")
    parser.add_argument("--batches", type=int, default=3, help="batches a repetition")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--output", type=Path, default=RESULTS / "feeding.csv")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for source in SOURCES:
        with tempfile.TemporaryDirectory() as folder:
            rows += rows_of(source, Path(folder), given)
    table = pd.DataFrame(rows)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(given.output, index=False)
    print(table.drop(columns=["torch", "processor"]).to_string(index=False))


if __name__ == "__main__":
    main()
