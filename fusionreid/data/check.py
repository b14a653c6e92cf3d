"""What `data check` prints: a set's identities, images and cameras beside the published ones."""

from .datasets import PUBLISHED, Counts, Dataset, count


def table(dataset: Dataset) -> str:
    """Identities, images and cameras of each split beside the published ones, in aligned columns."""
    rows = [["", "identities", "published", "images", "published", "cameras", "published"]]
    for split, records in dataset.splits.items():
        published = PUBLISHED[dataset.name][split] if dataset.name in PUBLISHED else ["-"] * 3
        pairs = zip(count(records), published, strict=True)
        rows.append([split, *(f"{number:,}" if number != "-" else "-" for pair in pairs for number in pair)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)


def verdict(dataset: Dataset) -> str:
    """One line: which numbers are not the published ones; "" if none are published."""
    differ = [
        f"{split}: {kind} {value:,} (published: {expected:,})"
        for split, published in PUBLISHED.get(dataset.name, {}).items()
        for kind, value, expected in zip(Counts._fields, count(dataset.splits[split]), published, strict=True)
        if value != expected
    ]
    if dataset.name in PUBLISHED and not differ:
        return "Complete: identities, images and cameras of each split are the published ones."
    return f"Not as published. {'; '.join(differ)}." if differ else ""
