"""A gallery of two million images, ranked from disk: its time grows with the gallery, its memory does not.

    python benchmarks/gallery_scaling.py        # needs 0.6 GB of disk for a while; about two minutes on two cores

Writes results/gallery_scaling.csv and .png. Features of simulated people are written to a feature store and ranked
from there at three sizes; `peak_mb` is the process's highest memory beyond what it holds before it opens the store,
the pages of the mapped file aside.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from measure import RESULTS, in_a_process, in_this_process, machine, spread_of, write_table

IDENTITIES, CAMERAS, QUERIES_SEED = 50_000, 20, 1


def build(path: Path, count: int, width: int) -> None:
    """A store of `count` simulated images, written piece by piece."""
    from fusionreid.evaluation.features import FeatureStore

    rng = np.random.default_rng(0)
    identities, cameras = rng.integers(0, IDENTITIES, count), rng.integers(0, CAMERAS, count)
    store = FeatureStore.create(path, count, width, "simulated", identities=identities, cameras=cameras)
    for start in range(store.done, count, 1 << 16):
        store.append(images(identities[start : start + (1 << 16)], width, seed=start + 2))


def images(identities: np.ndarray, width: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((IDENTITIES, width), dtype=np.float32)[identities]
    rows += np.random.default_rng(seed).standard_normal(rows.shape, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def prepare(path: str, queries: int, gallery: int):
    from fusionreid.evaluation.features import FeatureStore

    store = FeatureStore.open(path)
    rng = np.random.default_rng(QUERIES_SEED)
    query_ids, query_cameras = rng.integers(0, IDENTITIES, queries), rng.integers(0, CAMERAS, queries)
    query = images(query_ids, store.width, seed=QUERIES_SEED)
    return (
        query,
        store.features[:gallery],
        query_ids,
        store.identities[:gallery],
        query_cameras,
        store.cameras[:gallery],
    )


def work(*inputs) -> float:
    from fusionreid import evaluate_ranking

    return evaluate_ranking(*inputs).mAP


def draw(rows: list[dict]) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    millions = [row["gallery"] / 1e6 for row in rows]
    left.errorbar(
        millions, [row["seconds"] for row in rows], [row["spread"] / 2 for row in rows], marker="o", label="measured"
    )
    slope = rows[0]["seconds"] / millions[0]
    left.plot([0, millions[-1]], [0, slope * millions[-1]], "--", color="grey", label="in proportion to the first")
    left.set(xlabel="gallery (million images)", ylabel=f"seconds for {rows[0]['queries']} queries", ylim=(0, None))
    left.legend()
    right.plot(millions, [row["peak_mb"] for row in rows], marker="o", label="beyond the features")
    right.plot(millions, [row["matrix_mb"] for row in rows], "--", color="grey", label="queries x gallery, float32")
    right.set(xlabel="gallery (million images)", ylabel="memory (MB)", ylim=(0, None))
    right.legend()
    figure.savefig(RESULTS / "gallery_scaling.png", dpi=120)
    return RESULTS / "gallery_scaling.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gallery", type=int, default=2_000_000, help="the largest; a quarter and a half of it, too")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--store", help="measure this store alone and print it as JSON")
    options = parser.parse_args()
    if options.store:
        in_this_process(
            lambda: prepare(options.store, options.queries, options.gallery), work, options.repetitions, mapped=True
        )
        return

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), options.gallery, options.width)
        for gallery in (options.gallery // 4, options.gallery // 2, options.gallery):
            there = in_a_process(
                __file__,
                "--store",
                folder,
                "--gallery",
                gallery,
                "--queries",
                options.queries,
                "--repetitions",
                options.repetitions,
            )
            median, spread = spread_of(there["seconds"])
            rows.append(
                {
                    "gallery": gallery,
                    "queries": options.queries,
                    "width": options.width,
                    "seconds": round(median, 2),
                    "spread": round(spread, 2),
                    "nanoseconds_per_pair": round(1e9 * median / gallery / options.queries, 2),
                    "peak_mb": round(there["peak_mb"]),
                    "matrix_mb": round(4 * gallery * options.queries / 2**20),
                    "mAP": round(there["result"], 4),
                    "machine": machine(),
                }
            )
    print(f"wrote {write_table('gallery_scaling', rows)} and {draw(rows)}")


if __name__ == "__main__":
    main()
