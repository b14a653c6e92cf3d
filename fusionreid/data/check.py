"""Checks a set of images (`python -m fusionreid.data check market1501 --root data`) or makes the synthetic one."""

from __future__ import annotations

import argparse
import sys
import warnings

from .datasets import PUBLISHED, Counts, CountWarning, Dataset, count, open_dataset


def table(dataset: Dataset) -> str:
    """Identities, images and cameras of each split beside the published ones, aligned."""
    published = PUBLISHED.get(dataset.name)
    rows = [["", "identities", "published", "images", "published", "cameras", "published"]]
    for split, records in dataset.splits.items():
        cells = [split]
        for index, value in enumerate(count(records)):
            cells += [f"{value:,}", f"{published[split][index]:,}" if published else "-"]
        rows.append(cells)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)


def verdict(dataset: Dataset) -> str:
    """One line: whether the set is complete, and which numbers are not the published ones."""
    parts, fewer = [], False
    for split, published in PUBLISHED[dataset.name].items():
        numbers = zip(Counts._fields, count(dataset.splits[split]), published, strict=True)
        differ = [(kind, value, expected) for kind, value, expected in numbers if value != expected]
        fewer = fewer or any(value < expected for _, value, expected in differ)
        if differ:
            shown = ", ".join(f"{kind} {value:,} (published: {expected:,})" for kind, value, expected in differ)
            parts.append(f"{split}: {shown}")
    if not parts:
        return "Complete: identities, images and cameras of each split are the published ones."
    return f"{'Incomplete' if fewer else 'More than published'}. {'; '.join(parts)}."


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m fusionreid.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="print identities, images and cameras beside the published ones")
    check.add_argument("name", choices=[*PUBLISHED, "synthetic"])
    synthetic = commands.add_parser("synthetic", help="render the synthetic set")
    synthetic.add_argument("--workers", type=int, default=None, help="processes (default: one a core)")
    for command in (check, synthetic):
        command.add_argument("--root", default="data", help="the folder of the data sets (default: data)")
        command.add_argument("--size", default="demo", choices=["smoke", "demo", "full"], help="of the synthetic set")
        command.add_argument("--seed", type=int, default=0, help="of the synthetic set")
    given = parser.parse_args(arguments)
    try:
        if given.command == "synthetic":
            from .synthetic.build import build  # needs the optional package anny

            print(build(given.root, given.size, given.seed, workers=given.workers))
        else:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                warnings.simplefilter("ignore", CountWarning)  # the last line says it
                dataset = open_dataset(given.name, given.root, size=given.size, seed=given.seed)
            for warning in caught:
                print(f"warning: {warning.message}", file=sys.stderr)
            print(f"{' '.join(filter(None, [dataset.name, dataset.version]))} in {dataset.root}\n\n{table(dataset)}")
            if dataset.name in PUBLISHED:
                print(f"\n{verdict(dataset)}")
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from here")


if __name__ == "__main__":
    main()
