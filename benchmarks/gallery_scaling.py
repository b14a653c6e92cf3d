"""A gallery of two million images, ranked from disk: its time grows with it, its memory does not.

    python benchmarks/gallery_scaling.py        # needs 0.6 GB of disk; two minutes on two cores

Writes results/gallery_scaling.csv and .png. Features of simulated people are written to a memory
map and ranked from there at three sizes. `peak_mb` is the process's highest memory beyond what it
holds before it opens the map, without the pages of the mapped file.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from measure import RESULTS, in_a_process, in_this_process, machine, spread_of, write_table

IDENTITIES, CAMERAS = 50_000, 20
QUERY_SEED, GALLERY_SEED = 1, 0


def labels(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Identities and cameras of `count` images; the first ones are the same for every count."""
    drawn = np.random.default_rng(seed).integers(0, IDENTITIES * CAMERAS, count)
    return drawn % IDENTITIES, drawn // IDENTITIES


def images(identities: np.ndarray, width: int, seed: int) -> np.ndarray:
    """Features (len(identities), width) of images of these people, L2-normalised float32."""
    centres = np.random.default_rng(0).standard_normal((IDENTITIES, width), dtype=np.float32)
    rows = centres[identities]
    rows += np.random.default_rng(seed).standard_normal(rows.shape, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def build(path: Path, count: int, width: int) -> None:
    """Features of `count` simulated images, written piece by piece."""
    identities, _ = labels(count, GALLERY_SEED)
    features = np.lib.format.open_memmap(path, "w+", np.float32, (count, width))
    for start in range(0, count, 1 << 16):
        part = identities[start : start + (1 << 16)]
        features[start : start + len(part)] = images(part, width, seed=start + 2)
    features.flush()


def prepare(path: str, queries: int, gallery: int):
    features = np.load(path, mmap_mode="r")[:gallery]
    query_ids, query_cameras = labels(queries, QUERY_SEED)
    gallery_ids, gallery_cameras = labels(gallery, GALLERY_SEED)
    query = images(query_ids, features.shape[1], QUERY_SEED)
    return query, features, query_ids, gallery_ids, query_cameras, gallery_cameras


def work(*inputs) -> float:
    from fusionreid import evaluate_ranking

    return evaluate_ranking(*inputs).mAP


def draw(rows: list[dict]) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    millions = [row["gallery"] / 1e6 for row in rows]
    seconds = [row["seconds"] for row in rows]
    bars = [row["spread"] / 2 for row in rows]
    left.errorbar(millions, seconds, bars, marker="o", label="measured")
    proportional = [0, seconds[0] * millions[-1] / millions[0]]
    guide = {"linestyle": "--", "color": "grey"}
    left.plot([0, millions[-1]], proportional, label="in proportion to the first", **guide)
    left.set(ylabel=f"seconds for {rows[0]['queries']} queries")
    peaks = [row["peak_mb"] for row in rows]
    right.plot(millions, peaks, marker="o", label="beyond the features")
    matrices = [row["matrix_mb"] for row in rows]
    right.plot(millions, matrices, label="queries x gallery, float32", **guide)
    right.set(ylabel="memory (MB)")
    for axes in (left, right):
        axes.set(xlabel="gallery (million images)", ylim=(0, None))
        axes.legend()
    figure.savefig(RESULTS / "gallery_scaling.png", dpi=120)
    return RESULTS / "gallery_scaling.png"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    gallery_help = "the largest; a quarter and a half of it, too"
    parser.add_argument("--gallery", type=int, default=2_000_000, help=gallery_help)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--features", help="measure this file alone and print it as JSON")
    options = parser.parse_args()
    queries = options.queries
    if options.features:
        inputs = options.features, queries, options.gallery
        in_this_process(lambda: prepare(*inputs), work, options.repetitions, mapped=True)
        return

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        build(path, options.gallery, options.width)
        for gallery in (options.gallery // 4, options.gallery // 2, options.gallery):
            sizes = {"gallery": gallery, "queries": queries}
            measured = in_a_process(
                __file__, features=path, repetitions=options.repetitions, **sizes
            )
            seconds, spread = spread_of(measured["seconds"])
            rows.append(
                {
                    **sizes,
                    "width": options.width,
                    "seconds": round(seconds, 2),
                    "spread": round(spread, 2),
                    "nanoseconds_per_pair": round(1e9 * seconds / gallery / queries, 2),
                    "peak_mb": round(measured["peak_mb"]),
                    "matrix_mb": round(4 * gallery * queries / 2**20),
                    "mAP": round(measured["result"], 4),
                    "machine": machine(),
                }
            )
    print(f"wrote {write_table('gallery_scaling', rows)} and {draw(rows)}")


if __name__ == "__main__":
    main()
