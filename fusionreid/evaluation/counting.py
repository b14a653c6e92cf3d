"""How many images come before a match: counting instead of sorting, ties broken by gallery order."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SORT_ABOVE = 24  # matches of one query; from here one sort of the row costs less than a comparison for each
COMPARED_FIRST = 3  # of these, the farthest are compared even so: if little is nearer, little is left to sort
SPARSE = 12  # of so many images one is nearer: go on with those alone
SORT_ABOVE_ON_DEVICE = 128
TIES_ABOVE = 16


def count_before(row: np.ndarray, distance: np.ndarray, position: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """For each match, how many of a row come before it: nearer, or as far and earlier.

    Args:
        row: (G,) float32 distances; what does not count is inf.
        distance, position: (M,) float32 and int64, of the matches, ascending by distance, then position; a position
            before the row counts as 0, one after it as G.
        mask: (G,) bool, scratch.

    Returns:
        (M,) int64
    """
    position = np.minimum(np.maximum(position, 0), len(row))
    before = np.empty(len(distance), np.int64)
    left = len(distance)
    last = 0 if left <= SORT_ABOVE else left - COMPARED_FIRST
    while left > last:
        left -= 1
        here, limit = position[left], distance[left]
        np.less_equal(row[:here], limit, out=mask[:here])
        np.less(row[here:], limit, out=mask[here:])
        before[left] = np.count_nonzero(mask)
        if before[left] * SPARSE < len(row):  # whatever comes before a nearer match comes before this one
            near = np.flatnonzero(mask)
            before[:left] = _count_by_sorting(row[near], distance[:left], np.searchsorted(near, position[:left]))
            return before
    before[:left] = _count_by_sorting(row, distance[:left], position[:left])
    return before


def _count_by_sorting(row: np.ndarray, distance: np.ndarray, position: np.ndarray) -> np.ndarray:
    if len(distance) == 0 or len(row) == 0:
        return np.zeros(len(distance), np.int64)
    ordered = np.sort(row)
    before = np.searchsorted(ordered, distance, "left")
    ties = np.flatnonzero(np.searchsorted(ordered, distance, "right") > before)
    if len(ties) > TIES_ABOVE:  # sort distance and position as one number
        keys = np.sort(_key(row, np.arange(len(row))))
        return np.searchsorted(keys, _key(distance, position), "left")
    for k in ties:
        before[k] += np.count_nonzero(row[: position[k]] == distance[k])
    return before


def count_before_rows(block: Tensor, distance: Tensor, position: Tensor) -> Tensor:
    """`count_before` for all rows of a block at once, on its device.

    Args:
        block: (B, G) float32 distances.
        distance: (B, M) float32, each row ascending; padded with -inf.
        position: (B, M) int64.

    Returns:
        (B, M) int64
    """
    if distance.shape[1] > SORT_ABOVE_ON_DEVICE:
        ordered = block.sort(dim=1).values
        before = torch.searchsorted(ordered, distance)
        through = torch.searchsorted(ordered, distance, right=True)
    else:
        columns = range(distance.shape[1])
        before = torch.stack([(block < distance[:, k, None]).sum(1) for k in columns], dim=1)
        through = torch.stack([(block <= distance[:, k, None]).sum(1) for k in columns], dim=1)
    place = torch.arange(block.shape[1], device=block.device)
    for k in (through > before).any(dim=0).nonzero().flatten().tolist():
        earlier = place < position[:, k, None]
        before[:, k] += ((block == distance[:, k, None]) & earlier).sum(1)
    return before


def _key(distance: np.ndarray, position: np.ndarray) -> np.ndarray:
    """One int64 that sorts as (distance, position) do."""
    bits = (distance + np.float32(0)).view(np.int32)  # + 0: minus zero is zero
    bits = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)
    return (bits.astype(np.int64) << 32) | position
