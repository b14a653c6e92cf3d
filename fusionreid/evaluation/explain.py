"""Where the model looks (Sec. IV.E): Grad-CAM (Fig. 7), and the attention maps of `attention` (Fig. 8, 9).

Everything is read by hooks inside context managers; afterwards the model is as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..data import Dataset, Record
from ..models.fusion import BRANCHES
from ..models.fusionreid import FusionReID
from .attention import attention_maps, evaluating, record_attention

__all__ = [
    "ClassScore",
    "Similarity",
    "Stage",
    "attention_maps",
    "centred_gradcam",
    "gradcam",
    "gradcam_maps",
    "pairs",
    "record_attention",
    "similarity_targets",
    "stages",
]


def pairs(dataset: Dataset, people: int = 6, *, seed: int = 0) -> tuple[list[Record], list[Record]]:
    """Queries of different people, and for each a gallery image of the same person from another camera.

    Args:
        people: how many; fewer where the data set has fewer.
        seed: draws people and images.
    """
    random = np.random.default_rng(seed)
    queries, seconds = [], []
    for index in random.permutation(len(dataset.query)):
        query = dataset.query[index]
        others = [r for r in dataset.gallery if r.identity == query.identity and r.camera != query.camera]
        if others and query.identity not in {record.identity for record in queries}:
            queries.append(query)
            seconds.append(others[random.integers(len(others))])
        if len(queries) == people:
            break
    return queries, seconds


class Similarity:
    """Grad-CAM target: cosine similarity of the retrieval vector f_a to that of a second image of the person.

    People outside training have no class score; what decides about them is this similarity.
    """

    def __init__(self, vector: Tensor):
        self.vector = vector  # (sum of widths,)

    def __call__(self, embedding: Tensor) -> Tensor:
        return F.cosine_similarity(embedding, self.vector, dim=0)


class ClassScore:
    """Grad-CAM target for people of the training set: the mean over the features' classifiers of their logit."""

    def __init__(self, model: FusionReID, identity: int):
        self.model, self.identity = model, int(identity)

    def __call__(self, embedding: Tensor) -> Tensor:
        features = embedding[None].split(list(self.model.widths.values()), dim=1)
        necks = (self.model.necks[name] for name in self.model.widths)
        return torch.stack([neck(x)[0, self.identity] for neck, x in zip(necks, features, strict=True)]).mean()


def similarity_targets(model: FusionReID, references: Tensor, cameras: Tensor | None = None) -> list[Similarity]:
    """A target for each second image (B, 3, H, W), as `model` embeds it."""
    with evaluating(model), torch.no_grad():
        return [Similarity(vector) for vector in model.embed(references, cameras)]


class Stage(NamedTuple):
    """Local features that a map explains: the output of `layer` at its `turn`-th call in a pass, on `grid`."""

    layer: nn.Module
    grid: tuple[int, int]
    turn: int = 0


def stages(model: FusionReID, branch: str, image: Tensor) -> dict[str, Stage]:
    """The stages of one branch, by their name in Fig. 7.

    A single branch has "alone": the CNN's last map; for a Transformer the tokens that enter its last block (its first
    norm), as the patch tokens that leave it do not reach the class token any more. With fusion: "before LRU" is X,
    "after LRU" F, and "after HTM k" the local tokens S^l that HTM k's SEU makes of F and its MFU reads: an HTM gives
    no local features but these.

    Args:
        image: (1, 3, H, W), used to find the module that gives the CNN's map.

    Raises:
        ValueError: the model's HTMs have no local tokens that a later unit reads.
    """
    grid = model.grids[branch]
    if model.fusion is None:
        transformer = branch == "transformer"
        layer = model.branches[branch].base.blocks[-1].norm1 if transformer else _last_map(model.branches["cnn"], image)
        return {"alone": Stage(layer, grid)}
    layer = model.branches["transformer"] if branch == "transformer" else _last_map(model.branches["cnn"], image)
    found = {"before LRU": Stage(layer, grid), "after LRU": Stage(model.fusion.refine[branch], grid)}
    for number, htm in enumerate(model.fusion.stack, start=1):
        if htm.units != ("seu", "mfu"):
            raise ValueError(
                f"Grad-CAM after HTM {number}: expected units ('seu', 'mfu'), found {htm.units}; "
                "only there do local tokens of an HTM reach a feature"
            )
        shared = htm.seu["cnn"] is htm.seu["transformer"]
        found[f"after HTM {number}"] = Stage(htm.seu[branch], grid, BRANCHES.index(branch) if shared else 0)
    return found


def _last_map(cnn: nn.Module, image: Tensor) -> nn.Module:
    """The module of the CNN whose output is the very map that the branch gives."""
    outputs: list[tuple[nn.Module, Tensor]] = []
    handles = [module.register_forward_hook(lambda module, _, output: outputs.append((module, output)))
               for module in cnn.base.modules()]  # fmt: skip
    try:
        with evaluating(cnn), torch.no_grad():
            local = cnn(image).local
    finally:
        for handle in handles:
            handle.remove()
    return next(module for module, output in reversed(outputs) if output is local)


class _Tapped(nn.Module):
    """Images to embeddings, one stage's local features going through `tap`, where the graph begins."""

    def __init__(self, model: FusionReID, stage: Stage, cameras: Tensor | None):
        super().__init__()
        self.model, self.stage, self.cameras, self.calls = model, stage, cameras, 0
        self.tap = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        self.calls = 0
        handle = self.stage.layer.register_forward_hook(self._divert)
        try:
            embedding = self.model.embed(images, self.cameras)
        finally:
            handle.remove()
        if not embedding.requires_grad:
            raise ValueError("Grad-CAM: expected a stage that the features depend on, found one that nothing reads")
        return embedding

    def _divert(self, _layer, _inputs, output):
        turn, self.calls = self.calls, self.calls + 1
        if turn != self.stage.turn:
            return output
        if isinstance(output, Tensor):
            return self.tap(output.detach().requires_grad_())
        token, local = output  # of a branch, or of an SEU
        local = self.tap(local.detach().requires_grad_())
        return output._replace(local=local) if hasattr(output, "_replace") else (token, local)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Leaves the model's gradients alone: none are made here."""

    def as_map(self, local: Tensor) -> Tensor:
        """Local tokens (B, N, D), a class token before them or not, or a map, to (B, D, h, w)."""
        if local.ndim == 4:
            return local
        height, width = self.stage.grid
        return rearrange(local[:, local.shape[1] - height * width :], "b (h w) d -> b d h w", h=height)


def centred_gradcam() -> type:
    """Grad-CAM whose weighted sum is taken of activations less their mean over the places.

    Plain Grad-CAM keeps what is above zero (its ReLU). For the cosine similarity of a globally average-pooled map that
    is the same: the similarity does not change with the vector's length, so the weighted sum is zero on average. Tokens
    after a LayerNorm have offsets that make it negative everywhere for some images, and the plain map is then empty;
    centred, it shows where a feature speaks for the target more than it does on average.
    """
    from pytorch_grad_cam import GradCAM

    class CentredGradCAM(GradCAM):
        def get_cam_image(self, input_tensor, target_layer, targets, activations, grads, eigen_smooth=False):
            centred = activations - activations.mean(axis=(2, 3), keepdims=True)
            return super().get_cam_image(input_tensor, target_layer, targets, centred, grads, eigen_smooth)

    return CentredGradCAM


def gradcam(model: FusionReID, stage: Stage, images: Tensor, targets: Sequence[Callable[[Tensor], Tensor]],
            cameras: Tensor | None = None, *, method: type | None = None) -> Tensor:  # fmt: skip
    """Grad-CAM (Selvaraju et al., 2017) of one stage, by the package grad-cam.

    Args:
        images: (B, 3, H, W), normalised.
        targets: one for each image, called with its embedding (sum of widths,).
        method: a class of pytorch_grad_cam, for example its plain GradCAM; by default `centred_gradcam`.

    Returns:
        (B, h, w) float32 on the CPU, on the stage's own grid, each map from 0 to 1.

    Raises:
        ValueError: a map is zero, constant or not finite, naming the image; or nothing reads the stage's features.
    """
    if len(targets) != len(images):
        raise ValueError(f"targets: expected {len(images)}, one for each image, found {len(targets)}")
    tapped = _Tapped(model, stage, cameras)
    with evaluating(model), torch.enable_grad():
        cam = (method or centred_gradcam())(tapped, [tapped.tap], reshape_transform=tapped.as_map)
        cam.get_target_width_height = lambda _: stage.grid[::-1]  # not stretched to the image
        try:  # not `with cam`: its __exit__ swallows an IndexError
            maps = torch.from_numpy(cam(input_tensor=images, targets=list(targets)))
        finally:
            cam.activations_and_grads.release()
    for index, each in enumerate(maps):
        if not bool(each.isfinite().all()) or float(each.max() - each.min()) <= 0:
            raise ValueError(f"Grad-CAM of image {index}: expected a map that varies, found {float(each.min()):.3g} "
                             f"to {float(each.max()):.3g} everywhere")  # fmt: skip
    return maps / maps.amax(dim=(1, 2), keepdim=True)


def gradcam_maps(model: FusionReID, cnn: FusionReID, transformer: FusionReID, images: Tensor,
                 references: Tensor | None = None, *, identities: Tensor | None = None, cameras: Tensor | None = None,
                 reference_cameras: Tensor | None = None, method: type | None = None,
                 ) -> Mapping[tuple[str, str], Tensor]:  # fmt: skip
    """Fig. 7: for each branch the map of the branch alone, before and after LRU, and after each HTM.

    Args:
        model, cnn, transformer: FusionReID and its branches trained alone.
        images: (B, 3, H, W), normalised.
        references: second images (B, 3, H, W) of the same people; the target is the similarity to them.
        identities: (B,) training identities instead, for people of the training set; the target is the class score.
        cameras, reference_cameras: (B,), or None.
        method: as in `gradcam`.

    Returns:
        (branch, stage) -> (B, h, w) from 0 to 1 on the branch's grid; "cnn" first, the stages in the order of Fig. 7.

    Raises:
        ValueError: neither or both targets are given, or a map is zero or constant, naming branch and stage.
    """
    if (references is None) == (identities is None):
        raise ValueError("gradcam_maps: expected either references (second images) or identities, found "
                         + ("neither" if references is None else "both"))  # fmt: skip
    maps = {}
    for branch, single in (("cnn", cnn), ("transformer", transformer)):
        for net in (single, model):
            if references is None:
                targets = [ClassScore(net, identity) for identity in identities]
            else:
                targets = similarity_targets(net, references, reference_cameras)
            for name, stage in stages(net, branch, images[:1]).items():
                try:
                    maps[branch, name] = gradcam(net, stage, images, targets, cameras, method=method)
                except ValueError as error:
                    raise ValueError(f"{branch}, {name}: {error}") from error
    return maps
