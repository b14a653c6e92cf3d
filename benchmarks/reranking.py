"""Time and memory of k-reciprocal re-ranking at the sizes of the benchmarks.

    python benchmarks/reranking.py              # all sizes, features of 64 numbers, under six minutes on two cores
    python benchmarks/reranking.py --size market1501 --width 5888

Writes results/reranking.csv. `matrix_mb` is the one float32 matrix of all images by all images that the published
algorithm starts from (it holds several). Each measurement is a process of its own; its memory is the highest beyond
the features.
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--size", choices=SIZES, action="append", help="may be given again; default: all"
    )
    parser.add_argument("--width", type=int, default=64, help="numbers in a feature")
    parser.add_argument(
        "--repetitions", type=int, default=3, help="of all but msmt17, which is measured once"
    )
    parser.add_argument(
        "--measure", choices=("plain", "reranked"), help="measure this alone and print it as JSON"
    )
    options = parser.parse_args()
    sizes, width = options.size or list(SIZES), options.width
    if options.measure:
        work = {"plain": plain, "reranked": reranked}[options.measure]
        in_this_process(
            lambda: people(*SIZES[sizes[0]], width=width, spread=1.6), work, options.repetitions
        )
        return

    rows = []
    for size in sizes:
        queries, gallery = SIZES[size][:2]
        repetitions = 1 if size == "msmt17" else options.repetitions
        for what in ("plain", "reranked"):
            given = {"measure": what, "size": size, "width": width, "repetitions": repetitions}
            found = in_a_process(__file__, *(f"--{name}={value}" for name, value in given.items()))
            seconds, spread = spread_of(found["seconds"])
            rows.append(
                {
                    "size": size,
                    "queries": queries,
                    "gallery": gallery,
                    "width": width,
                    "ranking": what,
                }
                | {
                    "seconds": round(seconds, 1),
                    "spread": round(spread, 1) if repetitions > 1 else "",
                }
                | {
                    "peak_mb": round(found["peak_mb"]),
                    "matrix_mb": round(4 * (queries + gallery) ** 2 / 2**20),
                }
                | {name: round(value, 4) for name, value in found["result"].items()}
                | {"machine": machine()}
            )
    print(f"wrote {write_table('reranking', rows)}")


if __name__ == "__main__":
    main()
