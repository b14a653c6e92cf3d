"""Where a ranking fails: which matches are found, by what the two images differ in.

Attributes are tables of `data.truth.attributes`, with a row for each image of the query or of the
gallery, in order.
"""

import numpy as np
import pandas as pd

from .evaluate import Retrieval


def matches(
    distances: np.ndarray,
    retrieval: Retrieval,
    query_attributes: pd.DataFrame,
    gallery_attributes: pd.DataFrame,
) -> pd.DataFrame:
    """A row for each query and each of its matches: what they differ in, and whether it is found.

    Distances are (Q, G).

    Returns `query` and `match`, indices in query and gallery; `ahead`, how many images of others
    are nearer; `found`, whether none is (rank-1, were it the only match); `identity`; `cameras` of
    both, from 1; `yaw`, the angle between the headings, 0 to 180 degrees; `visible`, the smaller
    share of both.
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
        yaw=np.abs((turned + 180) % 360 - 180),
        visible=np.minimum(mine["visible"], theirs["visible"]),
    )
