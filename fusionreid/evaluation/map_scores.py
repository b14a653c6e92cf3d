"""How much of a map lies on the person: Fig. 7 to 9 in numbers, over all people (the paper shows six, and no number).

A map is on a grid of its own. What its cells weigh on the person, when it is resized bilinearly to the image, is read
from the mask once; every score is then a sum over the grid.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor
from tqdm.auto import tqdm

from ..data import Record
from ..data.truth import masks as read_masks
from ..models.fusion import OTHER
from ..models.fusionreid import FusionReID
from .embedding import evaluating
from .explain import class_targets, gradcam_maps, load, record_attention, similarity_targets

BATCH = 32  # images explained together


def score(maps: Tensor, masks: np.ndarray | Tensor) -> dict[str, np.ndarray]:
    """Scores maps (N, ..., h, w), 0 or more, by masks of the person (N, H, W) bool.

    Returns, each (N, ...) float32, nan where the mask is empty or the map is all zero:
        energy: the share of the map's sum on the person over the person's share of the image; 1 is chance.
        peak: 1 if the centre of the map's highest cell (the first of equals) lies on the person, else 0.
        breadth: (sum m)^2 / sum m^2 as a share of the image: 1 for a uniform map, 1 / cells for a single one.
        cover: the same of the person: 1 for a map that is even on the person.
    """
    masks = torch.as_tensor(masks).to(maps.device, torch.float32)
    if maps.ndim < 3 or masks.ndim != 3 or len(maps) != len(masks):
        raise ValueError(
            f"expected maps (N, ..., h, w) and masks (N, H, W), found {maps.shape} and {masks.shape}"
        )
    values = rearrange(maps.float(), "n ... h w -> n (...) h w")
    (rows, columns), (height, width) = values.shape[2:], masks.shape[1:]
    down, across = (
        _spread(rows, height).to(values),
        _spread(columns, width).to(values),
    )  # (h, H), (w, W)
    person = einsum(masks, down, across, "n y x, h y, w x -> n h w")[
        :, None
    ]  # what a cell weighs on the person
    image = einsum(down, across, "h y, w x -> h w")
    peaks = values.flatten(2).argmax(dim=2)
    y = ((peaks // columns + 0.5) * height / rows).long()
    x = ((peaks % columns + 0.5) * width / columns).long()

    def total(weights: Tensor, power: int = 1) -> Tensor:
        return (weights * values**power).sum(dim=(2, 3))

    def evenness(weights: Tensor) -> Tensor:
        return total(weights) ** 2 / (total(weights, 2) * weights.sum(dim=(-2, -1)))

    energy = total(person) / total(image) / masks.mean(dim=(1, 2))[:, None]
    peak = masks[torch.arange(len(masks), device=masks.device)[:, None], y, x].where(
        energy.isfinite(), torch.nan
    )
    found = {"energy": energy, "peak": peak, "breadth": evenness(image), "cover": evenness(person)}
    return {name: each.reshape(maps.shape[:-2]).cpu().numpy() for name, each in found.items()}


def _spread(cells: int, pixels: int) -> Tensor:
    """The share of each cell in each pixel, (cells, pixels), when a row of cells is resized linearly."""
    return F.interpolate(torch.eye(cells)[None], pixels, mode="linear", align_corners=False)[0]


def gradcam_scores(
    models: Sequence[FusionReID], records: Sequence[Record], seconds: Sequence[Record] | None = None
) -> pd.DataFrame:
    """Scores the ten maps of Fig. 7 of every record, one image a person of a set with masks, in batches.

    `models` are FusionReID, and its CNN and its Transformer trained alone. The target is the similarity to `seconds`,
    another image of each person; without them, for people of the training set, the class score. Returns a row a map:
    target, branch, stage, person (its place in `records`), the scores of `score`, `other` (energy on the mask of the
    next person of the batch: what a map owes to people standing in the middle) and `overlap` (correlation with the
    other branch's map of the stage).
    """
    rows, target = [], "class score" if seconds is None else "similarity"
    for people, images, cameras, masks in _batches(models[0], records):
        targets = partial(class_targets, identities=[records[person].identity for person in people])
        if seconds is not None:
            references, their_cameras = load(models[0], [seconds[person] for person in people])
            targets = partial(similarity_targets, references=references, cameras=their_cameras)
        maps = gradcam_maps(models, images, targets, cameras)
        for (branch, stage), values in maps.items():
            scores = score(values, masks) | {
                "other": score(values, np.roll(masks, 1, axis=0))["energy"]
            }
            scores["overlap"] = _overlap(values, maps[OTHER[branch], stage])
            names = {"target": target, "branch": branch, "stage": stage}
            rows.append(pd.DataFrame({**names, "person": people, **scores}))
    return pd.concat(rows, ignore_index=True)


def attention_scores(model: FusionReID, records: Sequence[Record]) -> pd.DataFrame:
    """Scores the attention of every head of SEU and MFU (Fig. 8), and of their mean (Fig. 9, "mean"), in batches.

    Returns a row a map: branch, layer, unit, head (from 1, or "mean"), person (its place in `records`), the scores of
    `score`, and `highest`, the map's highest weight.
    """
    rows = []
    for people, images, cameras, masks in _batches(model, records):
        with torch.no_grad(), record_attention(model) as weights:
            model.embed(images, cameras)
        for (layer, unit, branch), values in weights.items():
            for head, each in [*enumerate(values.unbind(1), start=1), ("mean", values.mean(dim=1))]:
                names = {
                    "branch": branch,
                    "layer": layer,
                    "unit": unit,
                    "head": head,
                    "person": people,
                }
                scores = score(each, masks) | {"highest": each.amax(dim=(1, 2)).cpu().numpy()}
                rows.append(pd.DataFrame({**names, **scores}))
    return pd.concat(rows, ignore_index=True)


def _batches(model: FusionReID, records: Sequence[Record]) -> Iterator[tuple]:
    """Places in `records`, images, cameras and masks of one batch after another."""
    parts = np.array_split(
        np.arange(len(records)), -(-len(records) // BATCH)
    )  # none of a single person
    with evaluating(model):
        for people in tqdm(parts, desc="maps", unit="batch", leave=False):
            some = [records[person] for person in people]
            yield people, *load(model, some), read_masks(some, model.config.image_size)


def _overlap(first: Tensor, second: Tensor) -> np.ndarray:
    """Correlation of maps (N, h, w), (N, h', w'), each resized to the finer grid: (N,)."""
    grid = [max(sizes) for sizes in zip(first.shape[1:], second.shape[1:], strict=True)]
    pairs = [
        F.interpolate(each[:, None], grid, mode="bilinear").flatten(1) for each in (first, second)
    ]
    return F.cosine_similarity(*(each - each.mean(dim=1, keepdim=True) for each in pairs)).numpy()
