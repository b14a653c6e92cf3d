"""Search in a large gallery on disk: seconds for queries, memory, and the time to notice that nothing changed.

    python benchmarks/search.py        # needs 0.3 GB of disk for a while; about two minutes on two cores

Writes results/search.csv. The features are simulated (random, L2-normalised, float16) and the pictures are links to one
small file, so that the time of embedding is not in it. The times grow with the gallery: a million pictures take five
times those of 200,000, which the column `a_million` states, as long as the features' file fits into the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import _memory_mb, machine, write_table


def pictures(folder: Path, count: int) -> list[Path]:
    """`count` names of one file, a thousand in a folder."""
    (folder / "one.png").touch()
    found = []
    for number in range(count):
        path = folder / f"{number // 1000:04d}" / f"{number:07d}.png"
        if number % 1000 == 0:
            path.parent.mkdir()
        os.link(folder / "one.png", path)
        found.append(path)
    return found


def main() -> None:
    from fusionreid import PAPER, build_model
    from fusionreid.config import profile
    from fusionreid.evaluation.gallery import Gallery, pictures_in
    from fusionreid.models.checkpoints import digest

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gallery", type=int, default=200_000)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 100])
    options = parser.parse_args()
    model, rng, rows = build_model(profile("demo").scale(PAPER), 1), np.random.default_rng(0), []
    width = sum(model.widths.values())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "people"
        folder.mkdir()
        paths = pictures(folder, options.gallery)
        # The file of a gallery, written without embedding.
        root = folder / ".fusionreid"
        root.mkdir()
        entries = []
        for path in paths:
            status = path.stat()
            name = os.path.relpath(path, root)
            entries.append((name, status.st_size, status.st_mtime_ns, -1))
        features = rng.standard_normal((len(paths), width), dtype=np.float32)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        file = root / f"{digest(model)}-float32.npz"
        np.savez(file, entries=json.dumps(entries), features=features.astype(np.float16))
        del features, entries
        del paths
        before, start = _memory_mb("RssAnon"), time.perf_counter()
        listed = [path for path in pictures_in(folder) if path.name != "one.png"]
        gallery = Gallery(root, model, listed)
        opened = time.perf_counter() - start
        held = _memory_mb("RssAnon") - before
        for count in options.queries:
            queries = rng.standard_normal((count, width), dtype=np.float32)
            gallery.search(queries)  # the file's pages are read once
            start = time.perf_counter()
            gallery.search(queries)
            seconds = time.perf_counter() - start
            rows.append(
                {
                    "gallery": options.gallery,
                    "width": width,
                    "queries": count,
                    "features_mb": gallery.features.nbytes >> 20,
                }
                | {
                    "seconds": round(seconds, 2),
                    "a_million": round(seconds * 1e6 / options.gallery, 1),
                }
                | {
                    "to_open": round(opened, 1),
                    "to_open_a_million": round(opened * 1e6 / options.gallery),
                }
                | {"memory_mb": round(held), "machine": machine()}
            )
    print(f"wrote {write_table('search', rows)}")


if __name__ == "__main__":
    main()
