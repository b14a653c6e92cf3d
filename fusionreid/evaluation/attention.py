"""Attention of SEU and MFU beside a plain mean: how even it is, and how the model ranks without it.

A head whose weights are all 1 / N gives the mean of its values. Its entropy is then the highest,
log N, and what it adds to the model is a mean and not a choice of places.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pandas as pd
import torch
from torch import Tensor

from ..data import Dataset, Record
from ..models.fusion import Attention
from ..models.fusionreid import FusionReID
from ..options import one_of
from .embedding import evaluating
from .evaluate import evaluate
from .explain import attention_modules, model_inputs, record_attention

SAMPLE = 32  # images that entropies are the mean of, at most


def attention_entropy(model: FusionReID, records: Sequence[Record]) -> list[dict]:
    """How even the weights of each head are, over at most 32 of the records, spread evenly.

    Measured are the weights with which a global token reads all its keys; in an SEU it is itself
    one of them. No random number is drawn, and the model stays as it is.

    Returns a row a head: `layer` and `head` from 1, `unit`, `branch`, and `entropy`, a share of its
    maximum log N: 1 is a plain mean, 0 a single key. There is none for a model without HTMs.
    """
    if not attention_modules(model):
        return []
    inputs = model_inputs(model, records[:: math.ceil(len(records) / SAMPLE)])
    with evaluating(model), record_attention(model) as maps:
        model(*inputs)
    rows = []
    for (layer, unit, branch), grids in maps.items():
        weights = grids.flatten(2)  # (B, heads, N)
        if unit == "seu":
            to_itself = 1 - weights.sum(dim=2, keepdim=True)
            weights = torch.cat([weights, to_itself.clamp(min=0)], dim=2)
        entropies = torch.special.entr(weights).sum(dim=2).mean(dim=0)
        entropies /= math.log(weights.shape[2])
        for head, entropy in enumerate(entropies.tolist(), start=1):
            rows.append(dict(layer=layer, unit=unit, branch=branch, head=head, entropy=entropy))
    return rows


def replaceable(model: FusionReID) -> dict[str, set[Attention]]:
    """Attention modules by place: "nothing", "all", each unit ("seu"), each layer ("layer 1")."""
    places = defaultdict(set, nothing=set())
    for (layer, unit, _), module in attention_modules(model).items():
        for where in ("all", unit, f"layer {layer}"):
            places[where].add(module)
    return places


@contextmanager
def attention_replaced_by_mean(model: FusionReID, where: str = "all") -> Iterator[None]:
    """Inside, the weights of some attention modules are 1 / N for all keys. Nothing is trained.

    `where` is a key of `replaceable`; ValueError for another one.
    """
    places = replaceable(model)
    one_of("where", where, places)
    with ExitStack() as hooks:
        for module in places[where]:
            hooks.enter_context(module.register_forward_hook(_plain_mean))
        yield


def _plain_mean(attention: Attention, inputs: tuple[Tensor, Tensor], output: Tensor) -> Tensor:
    """In place of the output (B, M, D): what attention gives if each weight is 1 / N."""
    _, context = inputs
    mean = attention.v(context).mean(dim=1, keepdim=True)  # (B, 1, D)
    return attention.proj(mean).expand_as(output)


def evaluate_replaced(model: FusionReID, dataset: Dataset, **options) -> pd.DataFrame:
    """How a model ranks as trained, and with means in place of attention, place by place.

    `options` are as of `evaluate`. Returns a row for each query by "all" and by each fused feature
    (the other features have no attention before them): `feature`, `replaced` (a key of
    `replaceable`), `person` (the identity), `mAP` (the query's average precision) and `rank-1`,
    both in percent. `paper.intervals.paired_difference` compares two of them.
    """
    fused = [name for name in model.widths if name.endswith("fused")]
    tables = []
    for where in replaceable(model):
        with attention_replaced_by_mean(model, where):
            rankings = evaluate(model, dataset, features=["all", *fused], **options)
        for feature, ranking in rankings.items():
            people = [dataset.query[query].identity for query in ranking.queries]
            table = pd.DataFrame({"feature": feature, "replaced": where, "person": people})
            table["mAP"] = 100 * ranking.average_precision
            table["rank-1"] = 100.0 * (ranking.first_match == 1)
            tables.append(table)
    return pd.concat(tables, ignore_index=True)
