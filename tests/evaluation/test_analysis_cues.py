"""Look-alikes told apart: by a feature that sees only local cues, by one that sees all, and by
none.
"""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fusionreid.data import open_dataset
from fusionreid.data.truth import attributes
from fusionreid.evaluation.analysis import accuracy_by_cue
from fusionreid.evaluation.evaluate import Retrieval
from fusionreid.evaluation.ranking import Labels

GROUPS = {
    1: ("local", "print"),
    2: ("local", "shoes"),
    3: ("global", "build"),
    4: ("global", "build"),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Four groups of four people, two images by each of three cameras, in Market-1501's layout with
    attributes.
    """
    folder, rows = tmp_path_factory.mktemp("groups"), []
    for name in ("bounding_box_train", "query", "bounding_box_test"):
        (folder / name).mkdir()
    for person in range(1, 17):
        group = 1 + (person - 1) // 4
        for camera in range(3):
            for number, name in enumerate(("query", "bounding_box_test", "bounding_box_train")):
                file = f"{name}/{person:04}_c{camera + 1}s1_{number:06}_00.png"
                Image.new("RGB", (8, 16)).save(folder / file)
                kind, cue = GROUPS[group]
                rows.append((file, person, camera, group, kind, cue, f"{cue} {person % 4}"))
    # A stranger in the gallery, of no group.
    Image.new("RGB", (8, 16)).save(folder / "bounding_box_test" / "0000_c1s1_000009_00.png")
    rows.append(("bounding_box_test/0000_c1s1_000009_00.png", 0, 0, 0, "", "", ""))
    columns = ["file", "identity", "camera", "group", "kind", "cue", "value"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "attributes.csv", index=False)
    return open_dataset("synthetic", folder)


@pytest.fixture(scope="module")
def retrieval(dataset):
    random = np.random.default_rng(0)
    query, gallery = Labels.of(dataset.query), Labels.of(dataset.gallery)
    people, groups = np.eye(17, dtype=np.float32), np.repeat(np.arange(5), [1, 4, 4, 4, 4])
    features = []
    for identities in (query.ids, gallery.ids):
        local = np.where(
            (groups[identities] <= 2)[:, None], people[identities], 1
        )  # global look-alikes are one to it
        noise = random.standard_normal((2, len(identities), 17), np.float32)
        features.append(
            {
                "sees all": people[identities],
                "sees local": local + 0.01 * noise[0],
                "blind": noise[1],
            }
        )
    return Retrieval(*features, query, gallery)


def score(dataset, retrieval, feature):
    return accuracy_by_cue(
        retrieval, attributes(dataset.query), attributes(dataset.gallery), feature
    )


def test_rows_are_kinds_and_cues(dataset, retrieval):
    table = score(dataset, retrieval, "sees all")
    assert table.index.tolist() == [
        ("global", "all"),
        ("global", "build"),
        ("local", "all"),
        ("local", "print"),
        ("local", "shoes"),
    ]
    assert (table["accuracy"] == 1).all() and np.allclose(table["chance"], 1 / 4)
    assert table["groups"].tolist() == [2, 2, 2, 1, 1] and table["queries"].tolist() == [
        24,
        24,
        24,
        12,
        12,
    ]
    assert table.loc[("local", "all"), "standard_error"] == 0 and np.isnan(
        table.loc[("local", "print")].iloc[1]
    )


def test_a_feature_for_local_cues_is_good_at_those_alone(dataset, retrieval):
    table = score(dataset, retrieval, "sees local")["accuracy"]
    assert table["local", "all"] == 1 and table["global", "all"] < 0.6


def test_accuracy_is_the_slow_loop(dataset, retrieval):
    query, gallery = retrieval.select("blind")
    query_ids, query_cameras = retrieval.query
    gallery_ids, gallery_cameras = retrieval.gallery
    means = []
    for group in (3, 4):
        right = []
        for q in range(len(query)):
            if 1 + (query_ids[q] - 1) // 4 == group:
                best = max(
                    (g for g in range(len(gallery))
                     if gallery_ids[g] and 1 + (gallery_ids[g] - 1) // 4 == group
                     and gallery_cameras[g] != query_cameras[q]),
                    key=lambda g: query[q] @ gallery[g],
                )  # fmt: skip
                right.append(gallery_ids[best] == query_ids[q])
        means.append(np.mean(right))
    found = score(dataset, retrieval, "blind").loc[("global", "build")]
    assert found["accuracy"] == pytest.approx(np.mean(means))
    assert found["standard_error"] == pytest.approx(np.std(means, ddof=1) / np.sqrt(2))


def test_queries_with_nobody_right_or_wrong_to_choose_do_not_count(dataset, retrieval):
    wrong = attributes(dataset.gallery)
    wrong.loc[wrong["identity"] > 4, "group"] = 0
    wrong.loc[(wrong["identity"] == 1), "group"] = 0
    table = accuracy_by_cue(retrieval, attributes(dataset.query), wrong, "sees all")
    assert table["queries"].to_dict() == {("local", "all"): 9, ("local", "print"): 9}
