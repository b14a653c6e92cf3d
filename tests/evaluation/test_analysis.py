"""Confusions, matches and look-alikes told apart, each against a slow obvious loop."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fusionreid.data import open_dataset
from fusionreid.data.truth import attributes
from fusionreid.evaluation.analysis import accuracy_by_cue, confusions, matches
from fusionreid.evaluation.distances import KnownDistances
from fusionreid.evaluation.evaluate import Retrieval
from fusionreid.evaluation.ranking import Labels, rank_by

PEOPLE, CAMERAS = 8, 3


def made_up_attributes(identities, cameras, random):
    """Two groups of three who differ by a cue, one person without look-alikes, and 0, a false
    detection.
    """
    group = np.select([identities == 0, identities <= 3, identities <= 6], [0, 1, 2], 0)
    kind = np.array(["", "local", "global"])[group]
    cue = np.array(["", "shoes", "height"])[group]
    value = np.where(group > 0, identities.astype(str), "")
    table = {
        "identity": identities,
        "camera": cameras,
        "group": group,
        "kind": kind,
        "cue": cue,
        "value": value,
    }
    return pd.DataFrame(table | {"yaw": random.uniform(-180, 180, len(identities)),
                                 "visible": random.uniform(0.4, 1, len(identities))})  # fmt: skip


@pytest.fixture(scope="module")
def ranked():
    random = np.random.default_rng(0)
    query_ids, gallery_ids = random.integers(1, PEOPLE, 40), random.integers(0, PEOPLE, 90)
    query_cameras, gallery_cameras = (
        random.integers(0, CAMERAS, 40),
        random.integers(0, CAMERAS, 90),
    )
    distances = random.random((40, 90), np.float32) + 0.3 * (query_ids[:, None] != gallery_ids)
    tables = (
        made_up_attributes(query_ids, query_cameras, random),
        made_up_attributes(gallery_ids, gallery_cameras, random),
    )
    retrieval = Retrieval(
        {}, {}, Labels(query_ids, query_cameras), Labels(gallery_ids, gallery_cameras)
    )
    ranking = rank_by(KnownDistances(distances), retrieval.query, retrieval.gallery)
    return distances, ranking, retrieval, tables


def test_confusions_are_the_slow_loop(ranked):
    distances, ranking, retrieval, (queries, gallery) = ranked
    query_ids, query_cameras = retrieval.query
    gallery_ids, gallery_cameras = retrieval.gallery
    table = confusions(distances, ranking, retrieval, queries, gallery)
    assert len(table) == ranking.num_valid and set(table["confused with"]) == {
        "a look-alike", "another outfit", "a false detection"}  # fmt: skip
    for row in table.to_dict("records"):
        q = row["query"]
        order = np.argsort(distances[q], kind="stable")
        wrong = next(g for g in order if gallery_ids[g] != query_ids[q])
        kept = [
            g
            for g in order
            if gallery_ids[g] != query_ids[q] or gallery_cameras[g] != query_cameras[q]
        ]
        assert row["wrong"] == wrong and row["first"] == (kept[0] != wrong)
        assert row["identity"] == query_ids[q] and row["other"] == gallery_ids[wrong]
        hits = [place for place, g in enumerate(kept, start=1) if gallery_ids[g] == query_ids[q]]
        assert row["average_precision"] == pytest.approx(
            np.mean([n / p for n, p in enumerate(hits, start=1)])
        )
        mine, theirs = queries.loc[q], gallery.loc[wrong]
        alike = mine["group"] == theirs["group"] != 0
        expected = (
            "a look-alike"
            if alike
            else "another outfit"
            if theirs["identity"]
            else "a false detection"
        )
        assert row["confused with"] == expected
        told = [mine["kind"], mine["cue"], mine["value"], theirs["value"]] if alike else [""] * 4
        assert [row[name] for name in ("kind", "cue", "value", "other value")] == told


def test_matches_are_the_slow_loop(ranked):
    distances, ranking, retrieval, (queries, gallery) = ranked
    query_ids, query_cameras = retrieval.query
    gallery_ids, gallery_cameras = retrieval.gallery
    table = matches(distances, retrieval, queries, gallery)
    expected = []
    for q in range(40):
        for g in range(90):
            if gallery_ids[g] == query_ids[q] and gallery_cameras[g] != query_cameras[q]:
                ahead = sum(
                    distances[q, o] < distances[q, g]
                    for o in range(90)
                    if gallery_ids[o] != query_ids[q]
                )
                turn = abs(queries.loc[q, "yaw"] - gallery.loc[g, "yaw"])
                seen = min(queries.loc[q, "visible"], gallery.loc[g, "visible"])
                cameras = f"{query_cameras[q] + 1} to {gallery_cameras[g] + 1}"
                expected.append(
                    (
                        q,
                        g,
                        ahead,
                        ahead == 0,
                        queries.loc[q, "kind"],
                        cameras,
                        min(turn, 360 - turn),
                        seen,
                    )
                )
    columns = ["query", "match", "ahead", "found", "kind", "cameras", "yaw", "visible"]
    pd.testing.assert_frame_equal(table[columns], pd.DataFrame(expected, columns=columns))
    # A query has rank-1 where any of its matches is found.
    first = table.groupby("query")["found"].any()
    assert first[ranking.queries].tolist() == (ranking.first_match == 1).tolist()


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
