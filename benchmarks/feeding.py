"""Images a second and core: decoding and augmenting one by one, and the decoded cache with augmented batches.

Both give the same training batches of 128 images at 256 x 128: resize (bicubic), flip, padded crop, normalise, erase.
One by one is the usual pipeline of torchvision transforms. Times are CPU seconds of one thread, so that other programs
on the machine count little; the methods take turns, and a row gives the median, least and most of the repetitions.

    python benchmarks/feeding.py            # writes benchmarks/results/feeding.csv
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torchvision import transforms

from fusionreid.data import Augment, ImageCache, normalise

SIZE = (256, 128)
BATCH = 128
# Height and width of the files. Market-1501's are all 128 x 64; DukeMTMC-reID's and MSMT17's vary, these are usual
# ones. At 256 x 128 nothing is resized, which spares the usual pipeline a third of its work.
SOURCES = {
    "128 x 64, as Market-1501": (128, 64),
    "240 x 110, as DukeMTMC-reID": (240, 110),
    "320 x 140, as MSMT17": (320, 140),
    "256 x 128, not resized": (256, 128),
}


def write_files(folder: Path, count: int, height: int, width: int) -> list[Path]:
    """JPEG files of smooth colours and some noise, about as many bytes as pictures of people."""
    random, paths = np.random.default_rng(0), []
    for index in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (16, 8, 3), np.uint8)).resize(
            (width, height), Image.BICUBIC
        )
        noisy = np.asarray(coarse) + random.normal(0, 6, (height, width, 3))
        paths.append(folder / f"{height}x{width}_{index:04d}.jpg")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def usual_pipeline(random: bool) -> transforms.Compose:
    """Resize, flip, pad, crop, to tensor, normalise, erase; or without the random steps."""
    resize = transforms.Resize(SIZE, transforms.InterpolationMode.BICUBIC)
    tensor = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    if not random:
        return transforms.Compose([resize, *tensor])
    crop = [transforms.RandomHorizontalFlip(), transforms.Pad(10), transforms.RandomCrop(SIZE)]
    erase = transforms.RandomErasing(0.5, scale=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3), value="random")
    return transforms.Compose([resize, *crop, *tensor, erase])


def one_by_one(paths: list[Path], indices: np.ndarray, pipeline) -> torch.Tensor:
    return torch.stack([pipeline(Image.open(paths[index]).convert("RGB")) for index in indices])


def measure(methods: dict, batches: list[np.ndarray], repetitions: int) -> dict[str, list[float]]:
    """Images a CPU second of each method, `repetitions` times, in turns."""
    rates = {name: [] for name in methods}
    for repetition in range(repetitions + 1):
        for name, method in methods.items():
            start = time.thread_time()
            for indices in batches:
                method(indices)
            if repetition:  # the first warms up
                rates[name].append(sum(map(len, batches)) / (time.thread_time() - start))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512, help="files of each kind")
    parser.add_argument("--batches", type=int, default=3, help="batches a repetition")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results" / "feeding.csv"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    generator, augment, rows = torch.Generator().manual_seed(0), Augment(), []
    for source, (height, width) in SOURCES.items():
        with tempfile.TemporaryDirectory() as folder:
            paths = write_files(Path(folder), given.images, height, width)
            cache = ImageCache(paths, SIZE, Path(folder) / "cache", interpolation="bicubic")
            plain = one_by_one(paths, np.arange(32), usual_pipeline(random=False))
            difference = (plain - normalise(cache.batch(np.arange(32)))).abs().max().item()
            assert difference < 1e-6
            random, pipeline = np.random.default_rng(1), usual_pipeline(random=True)
            batches = [random.integers(0, given.images, BATCH) for _ in range(given.batches)]
            methods = {
                "one by one": lambda i, paths=paths, pipeline=pipeline: one_by_one(
                    paths, i, pipeline
                ),
                "cache, batched": lambda i, cache=cache: augment(cache.batch(i), generator),
                "cache, reading only (a GPU augments)": lambda i, cache=cache: cache.batch(i),
            }
            rates = measure(methods, batches, given.repetitions)
        usual = statistics.median(rates["one by one"])
        for name, values in rates.items():
            ratios = [
                value / other for value, other in zip(values, rates["one by one"], strict=True)
            ]
            rows.append(
                {
                    "files": source,
                    "method": name,
                    "images_per_second_core": round(statistics.median(values)),
                    "least": round(min(values)),
                    "most": round(max(values)),
                    "times_one_by_one": round(statistics.median(values) / usual, 1),
                    "times_least": round(min(ratios), 1),
                    "times_most": round(max(ratios), 1),
                    "deterministic_difference": f"{difference:.1e}",
                    "repetitions": given.repetitions,
                    "torch": torch.__version__,
                    "processor": processor(),
                }
            )
    table = pd.DataFrame(rows)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(given.output, index=False)
    print(table.drop(columns=["torch", "processor"]).to_string(index=False))


def processor() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [
            line.partition(":")[2].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        if info.is_file()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
