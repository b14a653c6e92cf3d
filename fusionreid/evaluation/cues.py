"""The paper's thesis as a measurement: how well a feature tells look-alikes apart, by a local cue or a global one."""

import numpy as np
import pandas as pd

from .evaluate import Retrieval


def accuracy_by_cue(
    retrieval: Retrieval, gallery_attributes: pd.DataFrame, query_attributes: pd.DataFrame, feature: str = "all"
) -> pd.DataFrame:
    """How often the nearest of a query's own look-alikes, seen by other cameras, is the right person.

    The attributes are as `data.truth.attributes` gives them, in the order of the retrieval. Returns a row for each kind
    and cue, and one with the cue "all" for each kind: `accuracy` and `chance`, means over the groups of their means
    over queries; `standard_error` of the accuracy over the groups (NaN of one group); `groups` and `queries`. A query
    counts if both a right and a wrong person can be chosen.
    """
    query, gallery, query_ids, gallery_ids, query_cameras, gallery_cameras = retrieval.select(feature)
    gallery_groups, rows = gallery_attributes["group"].to_numpy(), []
    names = query_attributes[["kind", "cue", "group"]].itertuples(index=False, name=None)
    for place, (kind, cue, group) in enumerate(names):
        among = np.flatnonzero((gallery_groups == group) & (gallery_cameras != query_cameras[place]))
        right = gallery_ids[among] == query_ids[place]
        if group and right.any() and not right.all():
            nearest = float(right[(gallery[among] @ query[place]).argmax()])
            rows += [(kind, each, group, nearest, right.mean(), 1) for each in (cue, "all")]
    table = pd.DataFrame(rows, columns=["kind", "cue", "group", "accuracy", "chance", "queries"])
    means = {"accuracy": ("accuracy", "mean"), "chance": ("chance", "mean"), "queries": ("queries", "sum")}
    groups = table.groupby(["kind", "cue", "group"]).agg(**means)
    means |= {"standard_error": ("accuracy", "sem"), "groups": ("accuracy", "size")}
    return groups.groupby(["kind", "cue"]).agg(**means)[["accuracy", "standard_error", "chance", "groups", "queries"]]
