"""How much of a map lies on the person: Fig. 7 to 9 in numbers, over all people.

The paper shows six people and no number. A map is on a grid of its own. What a cell weighs on the
person, when the map is resized bilinearly to the image, is taken from the mask once. Every score is
then a sum over the grid.
"""

import math
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
from .explain import class_targets, gradcam_maps, model_inputs, record_attention, similarity_targets

BATCH = 32  # images explained together


def score(maps: Tensor, masks: np.ndarray | Tensor) -> dict[str, np.ndarray]:
    """Scores maps (N, ..., h, w), 0 or more, by masks of the person (N, H, W) bool.

    Returns (N, ...) float32 by name, NaN where the mask is empty or the map is all zero:
        energy: the share of the map's sum that is on the person, over the person's share of the
            image. 1 is chance.
        peak: 1 if the centre of the map's highest cell (the first of equals) is on the person.
        breadth: (sum m)^2 / sum m^2 as a share of the image: 1 for a uniform map, 1 / cells for a
            single cell.
        cover: the same as a share of the person: 1 for a map that is even on the person.
    """
    masks = torch.as_tensor(masks).to(maps.device, torch.float32)
    if maps.ndim < 3 or masks.ndim != 3 or len(maps) != len(masks):
        raise ValueError(
            "expected maps (N, ..., h, w) and masks (N, H, W), "
            f"found {tuple(maps.shape)} and {tuple(masks.shape)}"
        )
    values = rearrange(maps.float(), "n ... h w -> n (...) h w")
    rows, columns = values.shape[2:]
    height, width = masks.shape[1:]
    down = _spread(rows, height).to(values)  # (h, H)
    across = _spread(columns, width).to(values)  # (w, W)
    # What each cell weighs on the person, and in the image.
    person = einsum(masks, down, across, "n y x, h y, w x -> n h w")[:, None]
    image = einsum(down, across, "h y, w x -> h w")

    def total(weights: Tensor, power: int = 1) -> Tensor:
        return (weights * values**power).sum(dim=(2, 3))

    def evenness(weights: Tensor) -> Tensor:
        return total(weights) ** 2 / (total(weights, 2) * weights.sum(dim=(-2, -1)))

    energy = total(person) / total(image) / masks.mean(dim=(1, 2))[:, None]
    highest = values.flatten(2).argmax(dim=2)  # (n, ...) the cell's number
    y = ((highest // columns + 0.5) * height / rows).long()
    x = ((highest % columns + 0.5) * width / columns).long()
    number = torch.arange(len(masks), device=masks.device)[:, None]
    peak = masks[number, y, x].where(energy.isfinite(), torch.nan)
    scores = {"energy": energy, "peak": peak, "breadth": evenness(image), "cover": evenness(person)}
    return {name: values.reshape(maps.shape[:-2]).cpu().numpy() for name, values in scores.items()}


def _spread(cells: int, pixels: int) -> Tensor:
    """The share of each cell in each pixel, (cells, pixels), of a row that is resized linearly."""
    return F.interpolate(torch.eye(cells)[None], pixels, mode="linear", align_corners=False)[0]


def gradcam_scores(
    models: Sequence[FusionReID], records: Sequence[Record], seconds: Sequence[Record] | None = None
) -> pd.DataFrame:
    """Scores the ten maps of Fig. 7 of every record, in batches.

    Args:
        models: FusionReID, its CNN trained alone, and its Transformer trained alone.
        records: one image of each person, of a set with masks.
        seconds: another image of each person; the target is the similarity to it. Without them,
            for people of the training set, it is the class score.

    Returns a row a map: target, branch, stage, person (the index in `records`), the scores of
    `score`, `other` (energy on the mask of the person before in the batch: what a map owes to
    people who stand in the middle), and `overlap` (correlation with the other branch's map of the
    stage).
    """
    whole = models[0]
    tables = []
    for people, images, cameras, masks in _batches(whole, records):
        if seconds is None:
            target = "class score"
            identities = [records[person].identity for person in people]
            targets = partial(class_targets, identities=identities)
        else:
            target = "similarity"
            references, seen_by = model_inputs(whole, [seconds[person] for person in people])
            targets = partial(similarity_targets, references=references, cameras=seen_by)
        maps = gradcam_maps(models, images, targets, cameras)
        for (branch, stage), values in maps.items():
            table = {"target": target, "branch": branch, "stage": stage, "person": people}
            table |= _scores(values, masks)
            table["overlap"] = _overlap(values, maps[OTHER[branch], stage])
            tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True)


def attention_scores(model: FusionReID, records: Sequence[Record]) -> pd.DataFrame:
    """Scores the attention of every head of SEU and MFU (Fig. 8), and of their mean (Fig. 9).

    Returns a row a map: branch, layer, unit, head (from 1, or "mean"), person (the index in
    `records`), the scores of `score`, `other` as in `gradcam_scores`, and `highest`, the map's
    highest weight.
    """
    tables = []
    for people, images, cameras, masks in _batches(model, records):
        with record_attention(model) as weights:
            model.embed(images, cameras)
        for (layer, unit, branch), heads in weights.items():
            by_head = dict(enumerate(heads.unbind(dim=1), start=1))
            by_head["mean"] = heads.mean(dim=1)
            for head, values in by_head.items():
                table = {"branch": branch, "layer": layer, "unit": unit, "head": head}
                table |= {"person": people} | _scores(values, masks)
                table["highest"] = values.amax(dim=(1, 2)).cpu().numpy()
                tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True)


def _scores(maps: Tensor, masks: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of `score`, and `other`, the energy on the mask of the person before."""
    of_another = np.roll(masks, 1, axis=0)
    return score(maps, masks) | {"other": score(maps, of_another)["energy"]}


def _batches(
    model: FusionReID, records: Sequence[Record]
) -> Iterator[tuple[np.ndarray, Tensor, Tensor, np.ndarray]]:
    """Indices in `records`, images, cameras and masks of one batch after another.

    The batches are of equal size, so that none has a single person. The model is in evaluation
    mode, and its parameters need no gradient.
    """
    batches = np.array_split(np.arange(len(records)), math.ceil(len(records) / BATCH))
    with evaluating(model):
        for people in tqdm(batches, desc="maps", unit="batch", leave=False):
            batch = [records[person] for person in people]
            images, cameras = model_inputs(model, batch)
            yield people, images, cameras, read_masks(batch, model.config.image_size)


def _overlap(first: Tensor, second: Tensor) -> np.ndarray:
    """Correlation (N,) of maps (N, h, w) and (N, h', w'), both resized to the finer grid."""
    grid = np.maximum(first.shape[1:], second.shape[1:]).tolist()

    def centred(maps: Tensor) -> Tensor:
        values = F.interpolate(maps[:, None], grid, mode="bilinear").flatten(1)
        return values - values.mean(dim=1, keepdim=True)

    return F.cosine_similarity(centred(first), centred(second)).numpy()
