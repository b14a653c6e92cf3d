"""Time and memory of exact ranking, beside one stable argsort for each query.

    python benchmarks/ranking.py                # all sizes, under five minutes on two cores
    python benchmarks/ranking.py --size msmt17 --width 5888 --repetitions 3

Writes results/ranking.csv. Evaluators that sort are measured on their first `--sampled` queries and scaled to all of
them, which favours them: a real run would also hold their matrices. Each measurement is a process of its own; its
memory is the highest beyond the features. All evaluators must find the same mAP on the sampled queries (torchmetrics
to 1e-3, as it ranks similarities and does not define the order of ties).
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
    (query, gallery), (query_ids, gallery_ids, query_cameras, gallery_cameras) = features, labels
    norms, precisions = (gallery**2).sum(axis=1), []
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

    (query, gallery), (query_ids, gallery_ids, query_cameras, gallery_cameras) = features, labels
    precisions = []
    for vector, identity, camera in zip(query, query_ids, query_cameras, strict=True):
        same = gallery_ids == identity
        scored = ~(same & (gallery_cameras == camera))
        if same[scored].any():
            similarity = torch.from_numpy(gallery @ vector)[torch.from_numpy(scored)]
            precisions.append(
                float(retrieval_average_precision(similarity, torch.from_numpy(same[scored])))
            )
    return float(np.mean(precisions))


EVALUATORS = {"ours": ours, "argsort": argsort, "torchmetrics": torchmetrics}


def prepare(size: str, width: int, sampled: int):
    features, labels = people(*SIZES[size], width=width)
    if sampled:
        features[0], labels[0], labels[2] = (
            features[0][:sampled],
            labels[0][:sampled],
            labels[2][:sampled],
        )
    return features, labels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--size", choices=SIZES, action="append", help="may be given again; default: all"
    )
    parser.add_argument("--width", type=int, default=64, help="numbers in a feature")
    parser.add_argument(
        "--sampled", type=int, default=60, help="queries that sorting evaluators are measured on"
    )
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument(
        "--evaluator", choices=EVALUATORS, help="measure this one alone and print it as JSON"
    )
    options = parser.parse_args()
    sizes, width = options.size or list(SIZES), options.width
    if options.evaluator:
        inputs = sizes[0], width, options.sampled
        in_this_process(
            lambda: prepare(*inputs), EVALUATORS[options.evaluator], options.repetitions
        )
        return

    def measured(evaluator: str, size: str, sampled: int, repetitions: int) -> dict:
        given = {
            "evaluator": evaluator,
            "size": size,
            "width": width,
            "sampled": sampled,
            "repetitions": repetitions,
        }
        return in_a_process(__file__, *(f"--{name}={value}" for name, value in given.items()))

    names = ["ours", "argsort", "torchmetrics"]
    if not importlib.util.find_spec("torchmetrics"):
        names.remove("torchmetrics")
        print("torchmetrics is not installed: its rows are left out", file=sys.stderr)
    rows, ours_seconds = [], float("nan")
    for size in sizes:
        queries, gallery = SIZES[size][:2]
        sampled = min(options.sampled, queries)
        expected = measured("ours", size, sampled, 1)["result"]
        for name in names:
            count = queries if name == "ours" else sampled
            found = measured(name, size, 0 if name == "ours" else sampled, options.repetitions)
            if name != "ours" and abs(found["result"] - expected) > (
                1e-3 if name == "torchmetrics" else 1e-6
            ):
                raise AssertionError(
                    f"{name} at {size}: expected mAP {expected}, found {found['result']}"
                )
            seconds, spread = (value * queries / count for value in spread_of(found["seconds"]))
            ours_seconds = seconds if name == "ours" else ours_seconds
            rows.append(
                {
                    "size": size,
                    "queries": queries,
                    "gallery": gallery,
                    "width": width,
                    "evaluator": name,
                }
                | {"seconds": round(seconds, 2), "spread": round(spread, 2)}
                | {
                    "times_slower": round(seconds / ours_seconds, 1),
                    "peak_mb": round(found["peak_mb"]),
                }
                | {"queries_measured": count, "machine": machine()}
            )
    print(f"wrote {write_table('ranking', rows)}")


if __name__ == "__main__":
    main()
