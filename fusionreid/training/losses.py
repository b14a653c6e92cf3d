"""The objective (Sec. III.C, Eqs. 10 to 12): cross entropy and triplet loss of every feature.

Cross entropy is label-smoothed, the triplet loss is soft-margin and batch-hard. Both are means over
the batch. The total loss is their sum over the supervised features.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import TrainConfig
from ..models.fusionreid import Output


@dataclass
class PaperObjective:
    """What a network is trained for, Eq. 12. The total loss is the sum of the named losses."""

    num_classes: int  # of the classifiers
    config: TrainConfig

    def __call__(self, output: Output, identities: Tensor) -> dict[str, Tensor]:
        """Returns "cross_entropy/<feature>" and "triplet/<feature>" of each supervised feature.

        They are of a batch, from the model's output and the identities (B,).
        """
        losses = {}
        for name, feature in output.features.items():
            logits = output.logits[name].float()
            losses[f"cross_entropy/{name}"] = self.cross_entropy(logits, identities)
            losses[f"triplet/{name}"] = triplet(feature, identities, self.config.triplet_distance)
        return losses

    def cross_entropy(self, logits: Tensor, identities: Tensor) -> Tensor:
        """Eq. 10, of logits (B, num_classes)."""
        return F.cross_entropy(logits, identities, label_smoothing=self.config.label_smoothing)


def triplet(features: Tensor, identities: Tensor, distance: str = "euclidean") -> Tensor:
    """Eq. 11 with batch-hard mining (Hermans et al., 2017).

    Each image of the batch is an anchor. Its positive is the farthest image of the same identity,
    its negative is the nearest image of another identity.

    Args:
        features: (B, D), not normalised.
        identities: (B,).
        distance: "euclidean", or "squared" as Eq. 11 is printed.

    Raises:
        ValueError: the batch holds one identity only, so that there is no negative. This is
            checked on the CPU alone, as elsewhere the host would wait for the device.
    """
    same = identities[:, None] == identities  # (B, B)
    if identities.device.type == "cpu" and same.all():
        raise ValueError(
            f"triplet loss: the batch of {len(identities)} images holds only identity "
            f"{identities[0]}; it needs at least two (see fusionreid.data.PKSampler)"
        )
    distances = squared_distances(features)
    if distance == "euclidean":
        distances = distances.sqrt()
    positive = distances.masked_fill(~same, -torch.inf).amax(dim=1)
    negative = distances.masked_fill(same, torch.inf).amin(dim=1)
    return F.softplus(positive - negative).mean()


def squared_distances(features: Tensor) -> Tensor:
    """Squared Euclidean distances (B, B) between features (B, D), in float32.

    Distances are at least 1e-12, as the gradient of a square root is infinite at zero.
    """
    features = features.float()
    norms = features.square().sum(dim=1)
    distances = norms[:, None] + norms - 2 * features @ features.T
    itself = torch.eye(len(features), dtype=torch.bool, device=features.device)
    return distances.masked_fill(itself, 0.0).clamp(min=1e-12)
