"""Where a ranking fails: what was confused with what, and which matches are found, by what the two images differ in.

Attributes are tables of `data.truth.attributes`, in the order of query and gallery.
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
    """How often the nearest of a query's own look-alikes, seen by other cameras, is the right person.

    The attributes are as `data.truth.attributes` gives them, in the order of the retrieval. Returns a row for each kind
    and cue, and one with the cue "all" for each kind: `accuracy` and `chance`, means over the groups of their means
    over queries; `standard_error` of the accuracy over the groups (NaN of one group); `groups` and `queries`. A query
    counts if both a right and a wrong person can be chosen.
    """
    query, gallery = retrieval.select(feature)
    query_ids, query_cameras = retrieval.query
    gallery_ids, gallery_cameras = retrieval.gallery
    gallery_groups, rows = gallery_attributes["group"].to_numpy(), []
    names = query_attributes[["kind", "cue", "group"]].itertuples(index=False, name=None)
    for place, (kind, cue, group) in enumerate(names):
        among = np.flatnonzero(
            (gallery_groups == group) & (gallery_cameras != query_cameras[place])
        )
        right = gallery_ids[among] == query_ids[place]
        if group and right.any() and not right.all():
            nearest = float(right[(gallery[among] @ query[place]).argmax()])
            rows += [(kind, each, group, nearest, right.mean(), 1) for each in (cue, "all")]
    table = pd.DataFrame(rows, columns=["kind", "cue", "group", "accuracy", "chance", "queries"])
    means = {
        "accuracy": ("accuracy", "mean"),
        "chance": ("chance", "mean"),
        "queries": ("queries", "sum"),
    }
    groups = table.groupby(["kind", "cue", "group"]).agg(**means)
    means |= {"standard_error": ("accuracy", "sem"), "groups": ("accuracy", "size")}
    return groups.groupby(["kind", "cue"]).agg(**means)[
        ["accuracy", "standard_error", "chance", "groups", "queries"]
    ]


def confusions(
    distances: np.ndarray,
    ranking: Ranking,
    retrieval: Retrieval,
    query_attributes: pd.DataFrame,
    gallery_attributes: pd.DataFrame,
) -> pd.DataFrame:
    """A row for each valid query: how it is ranked, and its nearest image of somebody else.

    Distances are (Q, G); `ranking` is the ranking by them.

    Returns `query` and `wrong`, places in query and gallery; `identity` and the `other` one; `average_precision`;
    `first`, whether a match is nearer than `wrong`; `confused with` "a look-alike" of the same group, "another outfit"
    or "a false detection"; for a look-alike the `kind` of cue and the `cue` that tells the two apart, the query's
    `value` of it and the `other value`.
    """
    queries = ranking.queries
    elsewhere = retrieval.gallery.ids != retrieval.query.ids[queries, None]
    wrong = np.where(elsewhere, distances[queries], np.inf).argmin(axis=1)
    mine = query_attributes.iloc[queries].reset_index(drop=True)
    theirs = gallery_attributes.iloc[wrong].reset_index(drop=True)
    alike = (mine["group"] == theirs["group"]) & (mine["group"] > 0)
    table = pd.DataFrame(
        {
            "query": queries,
            "wrong": wrong,
            "identity": mine["identity"],
            "other": theirs["identity"],
        }
    )
    table["average_precision"], table["first"] = ranking.average_precision, ranking.first_match == 1
    known = [alike, theirs["identity"] < 1], ["a look-alike", "a false detection"]
    table["confused with"] = np.select(*known, "another outfit")
    cues = {
        "kind": mine["kind"],
        "cue": mine["cue"],
        "value": mine["value"],
        "other value": theirs["value"],
    }
    return table.assign(**{name: values.where(alike, "") for name, values in cues.items()})


def matches(
    distances: np.ndarray,
    retrieval: Retrieval,
    query_attributes: pd.DataFrame,
    gallery_attributes: pd.DataFrame,
) -> pd.DataFrame:
    """A row for each query and each of its matches: what they differ in, and whether the match is found.

    Returns `query` and `match`, places in query and gallery; `identity`; `kind` of the group's cue; `cameras`, from 1,
    of both; `yaw`, the angle between the headings, 0 to 180 degrees; `visible`, the smaller share of both; `ahead`,
    how many images of others are nearer; `found`, whether none is: rank-1, were it the only match.
    """
    query_ids, query_cameras = retrieval.query
    gallery_ids, gallery_cameras = retrieval.gallery
    same = gallery_ids == query_ids[:, None]
    query, match = np.nonzero(same & (gallery_cameras != query_cameras[:, None]))
    others = np.sort(np.where(same, np.inf, distances), axis=1)
    ahead = np.array(
        [np.searchsorted(others[q], distances[q, g]) for q, g in zip(query, match, strict=True)],
        int,
    )
    mine, theirs = (
        query_attributes.iloc[query].reset_index(),
        gallery_attributes.iloc[match].reset_index(),
    )
    table = pd.DataFrame({"query": query, "match": match, "ahead": ahead, "found": ahead == 0})
    table["identity"], table["kind"] = mine["identity"], mine["kind"]
    pairs = zip(query_cameras[query], gallery_cameras[match], strict=True)
    table["cameras"] = [f"{one + 1} to {other + 1}" for one, other in pairs]
    table["yaw"] = np.abs((mine["yaw"] - theirs["yaw"] + 180) % 360 - 180)
    return table.assign(visible=np.minimum(mine["visible"], theirs["visible"]))
