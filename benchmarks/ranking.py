"""Time and memory of exact ranking, beside one stable argsort for each query.

    python benchmarks/ranking.py                # all sizes, under five minutes on two cores
    python benchmarks/ranking.py --size msmt17 --width 5888 --repetitions 3

Writes results/ranking.csv. Evaluators that sort are measured on their first `--sampled` queries and
scaled to all of them, which favours them: a real run would also hold their matrices. Each
measurement is a process of its own; its memory is the highest beyond the features. All evaluators
must find the same mAP on the sampled queries (torchmetrics to 1e-3, as it ranks similarities and
does not define the order of ties).
"""

from __future__ import annotations

import argparse
import importlib.util
import sys

import numpy as np
from measure import SIZES, in_a_process, in_this_process, machine, people, spread_of, write_table


def ours(features, labels) -> float:
    from fusionreid import evaluate_ranking

    return evaluate_ranking(*features, *labels).mAP


def argsort(features, labels) -> float:
    """What NumPy evaluators do: a row of distances, one stable argsort, the matches in it."""
    query, gallery = features
    query_ids, gallery_ids, query_cameras, gallery_cameras = labels
    norms = (gallery**2).sum(axis=1)
    precisions = []
    for vector, identity, camera in zip(query, query_ids, query_cameras, strict=True):
        order = np.argsort(norms - 2 * (gallery @ vector), kind="stable")
        same = gallery_ids[order] == identity
        hits = same[~(same & (gallery_cameras[order] == camera))]
        if hits.any():
            places = np.flatnonzero(hits)
            precisions.append((np.arange(1, len(places) + 1) / (places + 1)).mean())
    return float(np.mean(precisions))


def torchmetrics(features, labels) -> float:
    """torchmetrics' average precision of each query, on the images it is scored on."""
    import torch
    from torchmetrics.functional.retrieval import retrieval_average_precision

    query, gallery = features
    query_ids, gallery_ids, query_cameras, gallery_cameras = labels
    precisions = []
    for vector, identity, camera in zip(query, query_ids, query_cameras, strict=True):
        same = gallery_ids == identity
        scored = ~(same & (gallery_cameras == camera))
        if same[scored].any():
            similarity = torch.from_numpy((gallery @ vector)[scored])
            matches = torch.from_numpy(same[scored])
            precisions.append(float(retrieval_average_precision(similarity, matches)))
    return float(np.mean(precisions))


EVALUATORS = {"ours": ours, "argsort": argsort, "torchmetrics": torchmetrics}
TOLERANCES = {"argsort": 1e-6, "torchmetrics": 1e-3}  # of mAP


def prepare(size: str, width: int, sampled: int):
    """Features and labels of a set's size, with so many of its queries (0: all)."""
    (query, gallery), labels = people(*SIZES[size], width=width)
    query_ids, gallery_ids, query_cameras, gallery_cameras = labels
    count = sampled or len(query)
    labels = query_ids[:count], gallery_ids, query_cameras[:count], gallery_cameras
    return (query[:count], gallery), labels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size_help = "may be given again; default: all"
    parser.add_argument("--size", choices=SIZES, action="append", help=size_help)
    parser.add_argument("--width", type=int, default=64, help="numbers in a feature")
    sampled_help = "queries that sorting evaluators are measured on"
    parser.add_argument("--sampled", type=int, default=60, help=sampled_help)
    parser.add_argument("--repetitions", type=int, default=5)
    evaluator_help = "measure this one alone and print it as JSON"
    parser.add_argument("--evaluator", choices=EVALUATORS, help=evaluator_help)
    options = parser.parse_args()
    width = options.width
    if options.evaluator:
        inputs = options.size[0], width, options.sampled
        evaluator = EVALUATORS[options.evaluator]
        in_this_process(lambda: prepare(*inputs), evaluator, options.repetitions)
        return

    names = list(EVALUATORS)
    if not importlib.util.find_spec("torchmetrics"):
        names.remove("torchmetrics")
        print("torchmetrics is not installed: its rows are left out", file=sys.stderr)
    rows = []
    for size in options.size or SIZES:
        queries, gallery = SIZES[size][:2]
        sampled = min(options.sampled, queries)
        alone = {"size": size, "width": width}
        expected = in_a_process(
            __file__, evaluator="ours", sampled=sampled, repetitions=1, **alone
        )["result"]
        for name in names:
            count = queries if name == "ours" else sampled
            measured = in_a_process(
                __file__, evaluator=name, sampled=count, repetitions=options.repetitions, **alone
            )
            result = measured["result"]
            if name == "ours":
                ours_seconds, _ = spread_of(measured["seconds"])
            elif abs(result - expected) > TOLERANCES[name]:
                raise AssertionError(f"{name} at {size}: expected mAP {expected}, found {result}")
            seconds, spread = (value * queries / count for value in spread_of(measured["seconds"]))
            rows.append(
                {
                    "size": size,
                    "queries": queries,
                    "gallery": gallery,
                    "width": width,
                    "evaluator": name,
                    "seconds": round(seconds, 2),
                    "spread": round(spread, 2),
                    "times_slower": round(seconds / ours_seconds, 1),
                    "peak_mb": round(measured["peak_mb"]),
                    "queries_measured": count,
                    "machine": machine(),
                }
            )
    print(f"wrote {write_table('ranking', rows)}")


if __name__ == "__main__":
    main()
