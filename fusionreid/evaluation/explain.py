"""Where the model looks (Sec. IV.E): Grad-CAM (Fig. 7) and attention (Fig. 8 and 9), by hooks.

Every hook is removed when its work is done.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import cycle
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from ..data import Dataset, Record, load_images, normalise
from ..models.backbones import BranchOutput
from ..models.fusion import BRANCHES, OTHER, Attention
from ..models.fusionreid import FusionReID
from .embedding import device_of, evaluating
from .ranking import Labels, matches_and_junk


def pairs(dataset: Dataset, people: int = 6, *, seed: int = 0) -> tuple[list[Record], list[Record]]:
    """Queries of up to `people` people, and a match of each, as ranking counts matches."""
    random = np.random.default_rng(seed)
    query_labels, gallery_labels = Labels.of(dataset.query), Labels.of(dataset.gallery)
    chosen = {}  # by identity, a query and its match
    for index in random.permutation(len(dataset.query)):
        query = dataset.query[index]
        matches, _ = matches_and_junk(query_labels, gallery_labels, index)
        if len(matches) and query.identity not in chosen and len(chosen) < people:
            match = matches[random.integers(len(matches))]
            chosen[query.identity] = query, dataset.gallery[match]
    queries = [query for query, _ in chosen.values()]
    matches = [match for _, match in chosen.values()]
    return queries, matches


def model_inputs(model: FusionReID, records: Sequence[Record]) -> tuple[Tensor, Tensor]:
    """Normalised images (B, 3, H, W) and cameras (B,) on the model's device.

    A camera that training has not seen is -1.
    """
    images = load_images([record.path for record in records], model.config.image_size)
    cameras = torch.tensor([record.camera for record in records])
    cameras[cameras >= model.num_cameras] = -1
    device = device_of(model)
    return normalise(images).to(device), cameras.to(device)


# What Grad-CAM explains: a number of an image's embedding (sum of widths,).
Target = Callable[[Tensor], Tensor]


def similarity_targets(
    model: FusionReID, references: Tensor, cameras: Tensor | None = None
) -> list[Target]:
    """How much more f_a is like the f_a of a second image than like the average training image.

    This likeness ranks a gallery. The cosine itself explains little: its gradient is at right
    angles to f_a, so the map leaves out what both images share (notebook 10 measures both).
    `references` are the second images (B, 3, H, W). Returns a target for each of them.
    """
    # The batch norms of the necks know the average training image.
    mean = torch.cat([model.necks[name].norm.running_mean for name in model.widths])
    with evaluating(model):
        return [(vector - mean).dot for vector in model.embed(references, cameras)]


def class_targets(model: FusionReID, identities: Sequence[int]) -> list[Target]:
    """For each image of a training identity: its logit, averaged over the features' classifiers."""

    def score(identity: int, embedding: Tensor) -> Tensor:
        features = embedding[None].split(list(model.widths.values()), dim=1)
        logits = [model.necks[name](x) for name, x in zip(model.widths, features, strict=True)]
        return torch.stack(logits)[:, 0, identity].mean()

    return [partial(score, identity) for identity in identities]


class Stage(NamedTuple):
    """Local features that a map explains, on `grid`: the output of `layer`.

    `branch` is named where the layer, an SEU, gives the local features of both branches.
    """

    layer: nn.Module
    grid: tuple[int, int]
    branch: str = ""


def stages(model: FusionReID, branch: str, image: Tensor) -> dict[str, Stage]:
    """The stages of one branch by their names in Fig. 7.

    Without fusion there is "alone": the last map of the CNN, or the tokens that enter the
    Transformer's last block (the patch tokens that leave it do not reach the class token). With
    fusion there are "before LRU", X; "after LRU", F; and "after HTM k": the local tokens S^l that
    the SEU of HTM k makes and its MFU reads.

    `image` (1, 3, H, W) is any image; it finds the module that gives the CNN's map. Raises
    ValueError if the units of an HTM are not an SEU and then an MFU.
    """
    grid = model.grids[branch]
    net = model.branches[branch]
    last = _last_map(net, image) if branch == "cnn" else net
    if model.fusion is None:
        if branch == "transformer":
            last = net.base.blocks[-1].norm1
        return {"alone": Stage(last, grid)}
    by_name = {
        "before LRU": Stage(last, grid),
        "after LRU": Stage(model.fusion.refine[branch], grid),
    }
    for number, htm in enumerate(model.fusion.stack, start=1):
        units = tuple(unit.name for unit in htm.units)
        if units != ("seu", "mfu"):
            raise ValueError(
                f"Grad-CAM after HTM {number}: expected an MFU that reads the local tokens of an "
                f"SEU, units=('seu', 'mfu'), found {units}"
            )
        by_name[f"after HTM {number}"] = Stage(htm.units[0], grid, branch)
    return by_name


def _last_map(cnn: nn.Module, image: Tensor) -> nn.Module:
    """The module of the CNN whose output is the very map that the branch gives."""
    outputs = []

    def note(module: nn.Module, _inputs, output) -> None:
        outputs.append((module, output))

    with evaluating(cnn), register_module_forward_hook(note):
        local = cnn(image).local
    return next(module for module, output in reversed(outputs) if output is local)


class _Tapped(nn.Module):
    """Images to embeddings. The local features of one stage go through `tap`.

    The graph begins there, so Grad-CAM differentiates no layer before the stage.
    """

    def __init__(self, model: FusionReID, stage: Stage, cameras: Tensor | None):
        super().__init__()
        self.model = model
        self.stage = stage
        self.cameras = cameras
        self.tap = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        with self.stage.layer.register_forward_hook(self._divert):  # removed at the end
            embedding = self.model.embed(images, self.cameras)
        if not embedding.requires_grad:
            raise ValueError(
                "Grad-CAM: expected a stage that the features depend on, "
                "found one that nothing reads"
            )
        return embedding

    def _divert(self, _layer, _inputs, output):
        if isinstance(output, Tensor):  # of an LRU, or a layer of a single branch
            return self._through_tap(output)
        if isinstance(output, BranchOutput):
            return output._replace(local=self._through_tap(output.local))
        tokens, local = output  # of an SEU
        branch = self.stage.branch
        return tokens, local | {branch: self._through_tap(local[branch])}

    def _through_tap(self, local: Tensor) -> Tensor:
        return self.tap(local.detach().requires_grad_())

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Leaves the model's own gradients alone: Grad-CAM makes none."""

    def as_map(self, local: Tensor) -> Tensor:
        """Local tokens (B, N, D) to a map (B, D, h, w); a class token before them is left out."""
        if local.ndim == 4:
            return local
        height, width = self.stage.grid
        return rearrange(local[:, -height * width :], "b (h w) d -> b d h w", h=height)


def centred_gradcam() -> type:
    """Grad-CAM of the activations minus their mean over all places.

    Its map shows the places that speak for the target more than the mean place does. Plain Grad-CAM
    keeps what is above zero. That is nothing where tokens after a LayerNorm have offsets that make
    the weighted sum negative everywhere. For the cosine similarity of an average-pooled map, both
    are the same.
    """
    from pytorch_grad_cam import GradCAM

    class CentredGradCAM(GradCAM):
        def get_cam_image(
            self, input_tensor, target_layer, targets, activations, grads, eigen_smooth=False
        ):
            centred = activations - activations.mean(axis=(2, 3), keepdims=True)
            return super().get_cam_image(
                input_tensor, target_layer, targets, centred, grads, eigen_smooth
            )

    return CentredGradCAM


def gradcam(
    model: FusionReID,
    stage: Stage,
    images: Tensor,
    targets: Sequence[Target],
    cameras: Tensor | None = None,
    *,
    method: type | None = None,
) -> Tensor:
    """Grad-CAM (Selvaraju et al., 2017) of one stage, by the package grad-cam.

    Args:
        images: (B, 3, H, W), normalised.
        targets: one for each image.
        method: another class of the package. Default: `centred_gradcam()`.

    Returns (B, h, w) float32 on the CPU, on the stage's own grid, each map from 0 to 1. Raises
    ValueError if a map, whose image is named, is constant or not finite, or if nothing reads the
    stage's features.
    """
    if len(targets) != len(images):
        raise ValueError(
            f"targets: expected {len(images)}, one for each image, found {len(targets)}"
        )
    tapped = _Tapped(model, stage, cameras)
    method = method or centred_gradcam()
    with evaluating(model), torch.enable_grad():
        cam = method(tapped, [tapped.tap], reshape_transform=tapped.as_map)
        cam.get_target_width_height = lambda _: stage.grid[::-1]  # not stretched to the image
        try:  # not `with cam`, which hides an IndexError
            maps = torch.from_numpy(cam(input_tensor=images, targets=targets))
        finally:
            cam.activations_and_grads.release()
    for index, heat in enumerate(maps):
        low, high = heat.aminmax()
        if not low < high < torch.inf:
            raise ValueError(
                f"Grad-CAM of image {index}: expected a map that varies, "
                f"found {low:.3g} to {high:.3g}"
            )
    return maps / maps.amax(dim=(1, 2), keepdim=True)


def gradcam_maps(
    models: Sequence[FusionReID],
    images: Tensor,
    targets: Callable[[FusionReID], list],
    cameras: Tensor | None = None,
) -> dict[tuple[str, str], Tensor]:
    """Fig. 7: for each branch its map alone, before and after LRU, and after each HTM.

    Args:
        models: FusionReID, its CNN trained alone, and its Transformer trained alone.
        images: (B, 3, H, W), normalised.
        targets: gives the targets of the images in a model, as `similarity_targets` does.

    Returns (branch, stage) -> (B, h, w) from 0 to 1 on the branch's grid, in the order of Fig. 7.
    """
    whole, *singles = models
    maps = {}
    for branch, single in zip(BRANCHES, singles, strict=True):
        for net in (single, whole):
            explained = targets(net)
            for name, stage in stages(net, branch, images[:1]).items():
                try:
                    maps[branch, name] = gradcam(net, stage, images, explained, cameras)
                except ValueError as error:
                    raise ValueError(f"{branch}, {name}: {error}") from error
    return maps


def attention_modules(model: FusionReID) -> dict[tuple[int, str, str], Attention]:
    """The attention of each layer (from 1), unit ("seu" or "mfu") and branch, in forward order.

    A module that both branches share is there twice. A model without HTMs has none.
    """
    stack = model.fusion.stack if model.fusion else []
    modules = {}
    for layer, htm in enumerate(stack, start=1):
        for unit in htm.units:
            for branch in BRANCHES:
                modules[layer, unit.name, branch] = unit[branch].attention
    return modules


@contextmanager
def record_attention(model: FusionReID) -> Iterator[dict[tuple[int, str, str], Tensor]]:
    """Records the attention weights of each forward pass inside; those of the last one are kept.

    Yields (layer from 1, "seu" or "mfu", branch) -> (B, heads, h, w): weights of the branch's
    global token to local tokens, on their own grid. In "seu" these are the branch's own tokens, in
    "mfu" the other branch's (Eqs. 6 and 7). Weights of an MFU sum to 1, those of an SEU to less, as
    the global token also attends to itself.
    """
    modules = attention_modules(model)
    if not modules:
        raise ValueError(
            "attention maps: expected a model with HTMs (FusionConfig.units), found none"
        )
    grids = model.grids
    maps = {}
    # A module that both branches share is called once for each, so calls tell the branches apart.
    calls = cycle(modules)

    def record(attention: nn.Module, inputs: tuple) -> None:
        layer, unit, branch = next(calls)
        with torch.no_grad():
            weights = attention.weights(*inputs)[:, :, 0]  # of the global token
        if unit == "seu":
            weights = weights[:, :, 1:]  # without the one to itself
        grid = grids[branch if unit == "seu" else OTHER[branch]]
        maps[layer, unit, branch] = rearrange(
            weights.float(), "b heads (h w) -> b heads h w", h=grid[0]
        )

    with ExitStack() as hooks:
        for module in dict.fromkeys(modules.values()):
            hooks.enter_context(module.register_forward_pre_hook(record))
        yield maps
