"""Matches, found or missed, against a slow obvious loop."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fusionreid.evaluation.analysis import matches
from fusionreid.evaluation.distances import KnownDistances
from fusionreid.evaluation.evaluate import Retrieval
from fusionreid.evaluation.ranking import Labels, rank_by

PEOPLE, CAMERAS = 8, 3


def made_up_attributes(identities, random):
    """Who is on images, how they turn and how much of them is seen."""
    count = len(identities)
    yaw = random.uniform(-180, 180, count)
    visible = random.uniform(0.4, 1, count)
    return pd.DataFrame({"identity": identities, "yaw": yaw, "visible": visible})


@pytest.fixture(scope="module")
def ranked():
    random = np.random.default_rng(0)
    query_ids, gallery_ids = random.integers(1, PEOPLE, 40), random.integers(0, PEOPLE, 90)
    query_cameras, gallery_cameras = (
        random.integers(0, CAMERAS, 40),
        random.integers(0, CAMERAS, 90),
    )
    distances = random.random((40, 90), np.float32) + 0.3 * (query_ids[:, None] != gallery_ids)
    tables = (made_up_attributes(query_ids, random), made_up_attributes(gallery_ids, random))
    retrieval = Retrieval(
        {}, {}, Labels(query_ids, query_cameras), Labels(gallery_ids, gallery_cameras)
    )
    ranking = rank_by(KnownDistances(distances), retrieval.query, retrieval.gallery)
    return distances, ranking, retrieval, tables


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
                expected.append((q, g, ahead, ahead == 0, cameras, min(turn, 360 - turn), seen))
    columns = ["query", "match", "ahead", "found", "cameras", "yaw", "visible"]
    pd.testing.assert_frame_equal(table[columns], pd.DataFrame(expected, columns=columns))
    # A query has rank-1 where any of its matches is found.
    first = table.groupby("query")["found"].any()
    assert first[ranking.queries].tolist() == (ranking.first_match == 1).tolist()
