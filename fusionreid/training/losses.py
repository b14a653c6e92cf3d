"""The objective (Sec. III.C, Eqs. 10 to 12): label-smoothed cross entropy and soft-margin batch-hard triplet.

Both are means over the batch, and the total is their sum over the supervised features.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import TrainConfig
from ..models.fusionreid import Output


def squared_distances(features: Tensor) -> Tensor:
    """Squared Euclidean distances (B, B) of features (B, D), in float32, and positive: a root has a gradient."""
    features = features.float()
    norms = features.square().sum(dim=1)
    distances = norms[:, None] + norms[None, :] - 2 * features @ features.T
    distances = distances.masked_fill(
        torch.eye(len(features), dtype=torch.bool, device=features.device), 0.0
    )
    return distances.clamp(min=1e-12)


def triplet(features: Tensor, identities: Tensor, distance: str = "euclidean") -> Tensor:
    """Eq. 11 with batch-hard mining (Hermans et al.): the farthest positive and the nearest negative of each anchor.

    Features are (B, D), not normalised; identities (B,); "squared" distances are as Eq. 11 is printed.
    Raises ValueError if a batch on the CPU holds one identity only, so that there is no negative.
    """
    same = identities[:, None] == identities[None, :]
    if identities.device.type == "cpu" and bool(
        same.all()
    ):  # elsewhere the host would wait for the device
        found = f"the batch of {len(identities)} images holds only identity {int(identities[0])}"
        raise ValueError(
            f"triplet loss: {found}; it needs at least two (see fusionreid.data.PKSampler)"
        )
    distances = squared_distances(features)
    distances = distances if distance == "squared" else distances.sqrt()
    positive = distances.masked_fill(~same, -torch.inf).amax(dim=1)
    negative = distances.masked_fill(same, torch.inf).amin(dim=1)
    return F.softplus(positive - negative).mean()


def attributes(logits: Tensor, identities: Tensor, looks: Tensor) -> Tensor:
    """The cross entropies of all attributes, summed; `looks` (identities, attributes) is the class of each by each."""
    entropies, sizes = (
        [],
        (looks.amax(dim=0) + 1).tolist(),
    )  # the logits have no bias: the shares are theirs
    for part, classes in zip(logits.split(sizes, dim=1), looks.unbind(dim=1), strict=True):
        shares = torch.bincount(classes) / len(classes)
        entropies.append(F.cross_entropy(part + shares.log(), classes[identities]))
    return torch.stack(entropies).sum()


def objective(
    output: Output, identities: Tensor, config: TrainConfig, looks: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 12: the total loss, and its terms named "cross_entropy/<feature>" and "triplet/<feature>".

    `looks` (identities, attributes), for pre-training: cross entropy tells apart not identities but looks.
    """
    smoothed = partial(F.cross_entropy, label_smoothing=config.label_smoothing)
    terms, entropy = {}, smoothed if looks is None else partial(attributes, looks=looks)
    for name, feature in output.features.items():
        terms[f"cross_entropy/{name}"] = entropy(output.logits[name].float(), identities)
        terms[f"triplet/{name}"] = triplet(feature, identities, config.triplet_distance)
    return torch.stack(list(terms.values())).sum(), terms
