"""Where a ranking fails: look-alikes, what was confused with what, and which matches are found.

Attributes are tables of `data.truth.attributes`, with a row for each image of the query or of the
gallery, in order.
"""

import numpy as np
import pandas as pd

from .evaluate import Retrieval
from .ranking import Ranking


def accuracy_by_cue(
    retrieval: Retrieval,
    query_attributes: pd.DataFrame,
    gallery_attributes: pd.DataFrame,
    feature: str = "all",
) -> pd.DataFrame:
    """How often the nearest of a query's look-alikes, seen by other cameras, is the right person.

    A query counts if both a right and a wrong person can be chosen. Returns a row for each kind and
    cue, and one with the cue "all" for each kind: `accuracy` and `chance`, means over groups of
    their means over queries; `standard_error` of the accuracy over the groups (NaN of one group);
    `groups` and `queries`.
    """
    query, gallery = retrieval.select(feature)
    gallery_groups = gallery_attributes["group"].to_numpy()
    rows = []
    cues = query_attributes[["kind", "cue", "group"]].itertuples(index=False, name=None)
    for index, (kind, cue, group) in enumerate(cues):
        other_camera = retrieval.gallery.cameras != retrieval.query.cameras[index]
        candidates = np.flatnonzero((gallery_groups == group) & other_camera)
        is_right = retrieval.gallery.ids[candidates] == retrieval.query.ids[index]
        if group and is_right.any() and not is_right.all():
            nearest = (gallery[candidates] @ query[index]).argmax()
            row = {"group": group, "accuracy": float(is_right[nearest]), "chance": is_right.mean()}
            rows.append({"kind": kind, "cue": cue} | row)
            rows.append({"kind": kind, "cue": "all"} | row)
    table = pd.DataFrame(rows, columns=["kind", "cue", "group", "accuracy", "chance"])
    groups = table.groupby(["kind", "cue", "group"])
    means = groups.mean().assign(queries=groups.size()).groupby(["kind", "cue"])
    return pd.DataFrame(
        {
            "accuracy": means["accuracy"].mean(),
            "standard_error": means["accuracy"].sem(),
            "chance": means["chance"].mean(),
            "groups": means.size(),
            "queries": means["queries"].sum(),
        }
    )


def confusions(
    distances: np.ndarray,
    ranking: Ranking,
    retrieval: Retrieval,
    query_attributes: pd.DataFrame,
    gallery_attributes: pd.DataFrame,
) -> pd.DataFrame:
    """A row for each valid query: how it is ranked, and its nearest image of somebody else.

    Distances are (Q, G); `ranking` is the ranking by them.

    Returns `query` and `wrong`, indices in query and gallery; `identity` and the `other` one;
    `average_precision`; `first`, whether a match is nearer than `wrong`; `confused with`: "a
    look-alike" of the same group, "another outfit" or "a false detection". For a look-alike also
    the `kind` of cue and the `cue` that tells the two apart, the query's `value` of it and the
    `other value`.
    """
    queries = ranking.queries
    is_other = retrieval.gallery.ids != retrieval.query.ids[queries, None]
    wrong = np.where(is_other, distances[queries], np.inf).argmin(axis=1)
    mine = query_attributes.iloc[queries].reset_index(drop=True)
    theirs = gallery_attributes.iloc[wrong].reset_index(drop=True)
    is_alike = (mine["group"] == theirs["group"]) & (mine["group"] > 0)
    is_nobody = theirs["identity"] < 1
    return pd.DataFrame(
        {
            "query": queries,
            "wrong": wrong,
            "identity": mine["identity"],
            "other": theirs["identity"],
            "average_precision": ranking.average_precision,
            "first": ranking.first_match == 1,
            "confused with": np.select(
                [is_alike, is_nobody], ["a look-alike", "a false detection"], "another outfit"
            ),
            "kind": mine["kind"].where(is_alike, ""),
            "cue": mine["cue"].where(is_alike, ""),
            "value": mine["value"].where(is_alike, ""),
            "other value": theirs["value"].where(is_alike, ""),
        }
    )


def matches(
    distances: np.ndarray,
    retrieval: Retrieval,
    query_attributes: pd.DataFrame,
    gallery_attributes: pd.DataFrame,
) -> pd.DataFrame:
    """A row for each query and each of its matches: what they differ in, and whether it is found.

    Distances are (Q, G).

    Returns `query` and `match`, indices in query and gallery; `ahead`, how many images of others
    are nearer; `found`, whether none is (rank-1, were it the only match); `identity`; `kind` of the
    group's cue; `cameras` of both, from 1; `yaw`, the angle between the headings, 0 to 180 degrees;
    `visible`, the smaller share of both.
    """
    query_cameras = retrieval.query.cameras
    gallery_cameras = retrieval.gallery.cameras
    is_same = retrieval.gallery.ids == retrieval.query.ids[:, None]  # (Q, G)
    is_match = is_same & (gallery_cameras != query_cameras[:, None])
    others = np.sort(np.where(is_same, np.inf, distances), axis=1)
    rows = []
    for query, match in np.argwhere(is_match):
        rows.append(
            {
                "query": query,
                "match": match,
                "ahead": np.searchsorted(others[query], distances[query, match]),
                "cameras": f"{query_cameras[query] + 1} to {gallery_cameras[match] + 1}",
            }
        )
    table = pd.DataFrame(rows, columns=["query", "match", "ahead", "cameras"])
    mine = query_attributes.iloc[table["query"]].reset_index()
    theirs = gallery_attributes.iloc[table["match"]].reset_index()
    turned = mine["yaw"] - theirs["yaw"]
    return table.assign(
        found=table["ahead"] == 0,
        identity=mine["identity"],
        kind=mine["kind"],
        yaw=np.abs((turned + 180) % 360 - 180),
        visible=np.minimum(mine["visible"], theirs["visible"]),
    )
