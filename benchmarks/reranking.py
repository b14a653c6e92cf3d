"""Time and memory of k-reciprocal re-ranking at the sizes of the benchmarks.

    python benchmarks/reranking.py              # all sizes, under six minutes on two cores
    python benchmarks/reranking.py --size market1501 --width 5888

Writes results/reranking.csv. `matrix_mb` is the one float32 matrix of all images by all images
that the published algorithm starts from (it holds several). Each measurement is a process of its
own; its memory is the highest beyond the features.
"""

from __future__ import annotations

import argparse

from measure import SIZES, in_a_process, in_this_process, machine, people, spread_of, write_table


def plain(features, labels, rerank: bool = False) -> dict:
    from fusionreid import evaluate_ranking

    ranking = evaluate_ranking(*features, *labels, rerank=rerank)
    return {"mAP": ranking.mAP, "rank-1": ranking.rank(1)}


def reranked(features, labels) -> dict:
    return plain(features, labels, rerank=True)


RANKINGS = {"plain": plain, "reranked": reranked}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size_help = "may be given again; default: all"
    parser.add_argument("--size", choices=SIZES, action="append", help=size_help)
    parser.add_argument("--width", type=int, default=64, help="numbers in a feature")
    repetitions_help = "of all but msmt17, which is measured once"
    parser.add_argument("--repetitions", type=int, default=3, help=repetitions_help)
    measure_help = "measure this alone and print it as JSON"
    parser.add_argument("--measure", choices=RANKINGS, help=measure_help)
    options = parser.parse_args()
    width = options.width
    if options.measure:
        size = SIZES[options.size[0]]
        work = RANKINGS[options.measure]
        in_this_process(lambda: people(*size, width=width, spread=1.6), work, options.repetitions)
        return

    rows = []
    for size in options.size or SIZES:
        queries, gallery = SIZES[size][:2]
        repetitions = 1 if size == "msmt17" else options.repetitions
        for name in RANKINGS:
            measured = in_a_process(
                __file__, measure=name, size=size, width=width, repetitions=repetitions
            )
            seconds, spread = spread_of(measured["seconds"])
            rows.append(
                {
                    "size": size,
                    "queries": queries,
                    "gallery": gallery,
                    "width": width,
                    "ranking": name,
                    "seconds": round(seconds, 1),
                    "spread": round(spread, 1) if repetitions > 1 else "",
                    "peak_mb": round(measured["peak_mb"]),
                    "matrix_mb": round(4 * (queries + gallery) ** 2 / 2**20),
                    **{metric: round(value, 4) for metric, value in measured["result"].items()},
                    "machine": machine(),
                }
            )
    print(f"wrote {write_table('reranking', rows)}")


if __name__ == "__main__":
    main()
