"""What should be apart and is not: images in two splits, and people in training and test."""

import hashlib

from .layouts import Splits


def overlaps(splits: Splits, same_people: bool = True) -> list[str]:
    """A line for each fault: how many images or people, and one example. None for a sound set.

    A query that is also in the gallery is its own first match; one of the training images is known
    to the model. Two images are the same if their files are. Only files whose size occurs among
    queries and elsewhere are read. With `same_people` an identity is the same person in training
    and test.
    """
    faults = []
    sizes = {
        split: [record.path.stat().st_size for record in records]
        for split, records in splits.items()
    }
    shared = {*sizes["query"]} & {*sizes["train"], *sizes["gallery"]} - {0}
    contents = {}  # of each split, the file of each content
    for split, records in splits.items():
        contents[split] = {}
        for record, size in zip(records, sizes[split], strict=True):
            if size in shared:
                contents[split][hashlib.md5(record.path.read_bytes()).digest()] = record.path
    for split in ("gallery", "train"):
        both = contents["query"].keys() & contents[split].keys()
        if both:
            query, other = min((contents["query"][key], contents[split][key]) for key in both)
            faults.append(
                f"images of query that are in {split} too: {len(both)}, as {query} and {other}"
            )
    trained = {record.identity for record in splits["train"]}
    tested = {record.identity for record in splits["gallery"]} - {0}  # 0: distractors, no person
    tested |= {record.identity for record in splits["query"]}
    people = trained & tested
    if same_people and people:
        faults.append(
            f"identities of train that are in query or gallery too: {len(people)}, as {min(people)}"
        )
    return faults
