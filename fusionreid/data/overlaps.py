"""What should be apart and is not: images in two splits, and people in training and test."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path


def overlaps(
    splits: Mapping[str, Sequence], sizes: Mapping[Path, int], same_people: bool = True
) -> list[str]:
    """A line for each fault: how many images or people, and one example. None for a sound set.

    A query that is also in the gallery is found at once, and one that was trained on is known. Two images are the same
    if their files are; only files of equal size, in `sizes` in bytes, are read. `splits` are "train", "query" and
    "gallery"; with `same_people` an identity is the same person in training and test.
    """
    found, queries = [], {sizes[record.path] for record in splits["query"]} - {0}
    paths = {
        split: [r.path for r in records if sizes[r.path] in queries]
        for split, records in splits.items()
    }
    shared = queries & {sizes[path] for split in ("train", "gallery") for path in paths[split]}
    contents = {
        split: {
            hashlib.md5(path.read_bytes()).digest(): path for path in each if sizes[path] in shared
        }
        for split, each in paths.items()
    }
    for split in ("gallery", "train"):
        if both := contents["query"].keys() & contents[split].keys():
            one, other = min((contents["query"][key], contents[split][key]) for key in both)
            found.append(
                f"images of query that are in {split} too: {len(both)}, as {one} and {other}"
            )
    trained, queried, ranked = (
        {r.identity for r in splits[split]} for split in ("train", "query", "gallery")
    )
    if same_people and (both := trained & (queried | ranked - {0})):  # 0: what is nobody's
        found.append(
            f"identities of train that are in query or gallery too: {len(both)}, as {min(both)}"
        )
    return found
