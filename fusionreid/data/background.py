"""Does the background tell who a person is?

A check for rendered sets, whose masks say where nobody stands.
"""

import numpy as np
from einops import rearrange

SHUFFLES = 200


def edge_shortcut(
    images: np.ndarray, masks: np.ndarray, identities: np.ndarray, cameras: np.ndarray
) -> dict[str, float]:
    """How often the image with the most similar edges, in the same camera, shows the same person.

    An edge is a sixteenth of the width, left and right. Images in whose edges the person stands are
    left out. Images are (N, H, W, 3) uint8; masks (N, H, W) bool, true on the person; identities
    and cameras (N,).

    Returns `accuracy`, the share of images whose nearest one is of the same person; `chance` and
    its `standard error`, the same with people shuffled 200 times inside each camera; and the number
    of `images` that were compared.
    """
    width = max(1, images.shape[2] // 16)
    edges = np.r_[:width, -width:0]
    is_empty = ~masks[:, :, edges].any(axis=(1, 2))
    random = np.random.default_rng(0)
    hits = np.zeros(1 + SHUFFLES)  # first with people as they are, then shuffled
    compared = 0
    for camera in np.unique(cameras):
        chosen = np.flatnonzero(is_empty & (cameras == camera))
        if len(chosen) < 2:
            continue
        compared += len(chosen)
        pixels = rearrange(images[chosen][:, :, edges], "n h w c -> n (h w c)").astype(np.float32)
        # Squared distances, less a term that is the same for all images of a row.
        distances = np.square(pixels).sum(axis=1) - 2 * pixels @ pixels.T
        np.fill_diagonal(distances, np.inf)
        nearest = distances.argmin(axis=1)
        people = identities[chosen]
        for turn in range(len(hits)):
            hits[turn] += np.count_nonzero(people[nearest] == people)
            people = random.permutation(people)
    shares = hits / max(compared, 1)
    return {
        "accuracy": float(shares[0]),
        "chance": shares[1:].mean(),
        "standard error": shares[1:].std(),
        "images": compared,
    }
