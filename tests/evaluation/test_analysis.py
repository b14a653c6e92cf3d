"""Confusions and found matches: each by a slow obvious loop over a set of people whose differences
are known.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fusionreid.evaluation.analysis import confusions, matches
from fusionreid.evaluation.distances import KnownDistances
from fusionreid.evaluation.evaluate import Retrieval
from fusionreid.evaluation.ranking import Labels, rank_by

PEOPLE, CAMERAS = 8, 3


def attributes(identities, cameras, random):
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
        attributes(query_ids, query_cameras, random),
        attributes(gallery_ids, gallery_cameras, random),
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
