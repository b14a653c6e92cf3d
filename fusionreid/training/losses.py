"""The objective (Sec. III.C, Eqs. 10 to 12): label-smoothed cross entropy and soft-margin batch-hard triplet.

Both are means over the batch, and the total is their sum over the supervised features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import TrainConfig
from ..models.fusionreid import Output


def cross_entropy(logits: Tensor, identities: Tensor, smoothing: float = 0.1) -> Tensor:
    """Eq. 10 with label smoothing (Szegedy et al.): logits (B, C), identities (B,) in 0 to C - 1."""
    return F.cross_entropy(logits, identities, label_smoothing=smoothing)


def pairwise_distances(features: Tensor, squared: bool = False) -> Tensor:
    """Euclidean distances (B, B) of features (B, D), in float32; their gradient is finite at zero."""
    features = features.float()
    norms = features.square().sum(dim=1)
    distances = norms[:, None] + norms[None, :] - 2 * features @ features.T
    distances = distances.masked_fill(torch.eye(len(features), dtype=torch.bool, device=features.device), 0.0)
    return distances.clamp(min=1e-12) if squared else distances.clamp(min=1e-12).sqrt()


def triplet(features: Tensor, identities: Tensor, distance: str = "euclidean") -> Tensor:
    """Eq. 11 with batch-hard mining (Hermans et al.): the farthest positive and the nearest negative of each anchor.

    Args:
        features: (B, D), not normalised.
        identities: (B,).
        distance: "euclidean", or "squared" as Eq. 11 is printed.

    Raises:
        ValueError: if a batch on the CPU holds one identity only, so that there is no negative.
    """
    same = identities[:, None] == identities[None, :]
    if identities.device.type == "cpu" and bool(same.all()):  # elsewhere the host would wait for the device
        raise ValueError(
            f"triplet loss: the batch of {len(identities)} images holds only identity {int(identities[0])}; "
            "it needs at least two (see fusionreid.data.PKSampler)"
        )
    distances = pairwise_distances(features, squared=distance == "squared")
    positive = distances.masked_fill(~same, -torch.inf).amax(dim=1)
    negative = distances.masked_fill(same, torch.inf).amin(dim=1)
    return F.softplus(positive - negative).mean()


def objective(output: Output, identities: Tensor, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 12: the total loss, and its terms named "cross_entropy/<feature>" and "triplet/<feature>"."""
    terms = {}
    for name, feature in output.features.items():
        terms[f"cross_entropy/{name}"] = cross_entropy(output.logits[name].float(), identities, config.label_smoothing)
        terms[f"triplet/{name}"] = triplet(feature, identities, config.triplet_distance)
    return torch.stack(list(terms.values())).sum(), terms
