"""Where the model looks (Sec. IV.E): Grad-CAM (Fig. 7), and attention (Fig. 8 and 9), by hooks that are removed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import cycle
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from ..data import Dataset, Record, load_images, normalise
from ..models.backbones import BranchOutput
from ..models.fusion import BRANCHES, OTHER
from ..models.fusionreid import FusionReID
from .embedding import device_of, evaluating


def pairs(dataset: Dataset, people: int = 6, *, seed: int = 0) -> tuple[list[Record], list[Record]]:
    """Queries of at most `people` people, and for each a gallery image of the same person from another camera."""
    random, chosen = np.random.default_rng(seed), {}
    for index in random.permutation(len(dataset.query)):
        query = dataset.query[index]
        others = [
            r for r in dataset.gallery if r.identity == query.identity and r.camera != query.camera
        ]
        if others and query.identity not in chosen and len(chosen) < people:
            chosen[query.identity] = query, others[random.integers(len(others))]
    return [query for query, _ in chosen.values()], [second for _, second in chosen.values()]


def load(model: FusionReID, records: Sequence[Record]) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W), normalised, and cameras (B,), -1 for those that training has not seen, for `model`."""
    device = device_of(model)
    images = normalise(load_images([record.path for record in records], model.config.image_size))
    cameras = torch.tensor(
        [record.camera if record.camera < model.num_cameras else -1 for record in records]
    )
    return images.to(device), cameras.to(device)


# What Grad-CAM explains: of an image's embedding (sum of widths,) a number.
Target = Callable[[Tensor], Tensor]


def similarity_targets(
    model: FusionReID, references: Tensor, cameras: Tensor | None = None
) -> list[Target]:
    """For each second image (B, 3, H, W), how much more f_a is like it than like the average training image.

    That is what ranks a gallery. The cosine itself explains little: its gradient is at right angles to f_a, so that the
    map leaves out what the image already shares with the second one (notebook 10 measures both).
    """
    mean = torch.cat(
        [model.necks[name].norm.running_mean for name in model.widths]
    )  # the necks know it
    with evaluating(model), torch.no_grad():
        return [(vector - mean).dot for vector in model.embed(references, cameras)]


def class_targets(model: FusionReID, identities: Sequence[int]) -> list[Target]:
    """For each image of a training identity the mean over the features' classifiers of its logit."""

    def score(identity: int, embedding: Tensor) -> Tensor:
        features = embedding[None].split(list(model.widths.values()), dim=1)
        logits = [model.necks[name](x) for name, x in zip(model.widths, features, strict=True)]
        return torch.stack(logits)[:, 0, identity].mean()

    return [partial(score, int(identity)) for identity in identities]


class Stage(NamedTuple):
    """Local features that a map explains, on `grid`: the output of `layer`.

    `branch` is named where the layer, an SEU, gives the local features of both branches.
    """

    layer: nn.Module
    grid: tuple[int, int]
    branch: str = ""


def stages(model: FusionReID, branch: str, image: Tensor) -> dict[str, Stage]:
    """The stages of one branch, by their name in Fig. 7.

    A single branch has "alone": the last map of the CNN, or the tokens that enter the Transformer's last block, as the
    patch tokens that leave it do not reach the class token. With fusion, "before LRU" is X, "after LRU" is F, and
    "after HTM k" are the local tokens S^l that SEU makes of F in HTM k and that its MFU reads, else a ValueError.
    `image` (1, 3, H, W) is used to find the module that gives the CNN's map.
    """
    grid, net = model.grids[branch], model.branches[branch]
    last = _last_map(net, image) if branch == "cnn" else net
    if model.fusion is None:
        return {"alone": Stage(last if branch == "cnn" else net.base.blocks[-1].norm1, grid)}
    found = {"before LRU": Stage(last, grid), "after LRU": Stage(model.fusion.refine[branch], grid)}
    for number, htm in enumerate(model.fusion.stack, start=1):
        units = tuple(unit.name for unit in htm.units)
        if units != ("seu", "mfu"):
            expected = "expected an MFU that reads the local tokens of an SEU, units=('seu', 'mfu')"
            raise ValueError(f"Grad-CAM after HTM {number}: {expected}, found {units}")
        found[f"after HTM {number}"] = Stage(htm.units[0], grid, branch)
    return found


def _last_map(cnn: nn.Module, image: Tensor) -> nn.Module:
    """The module of the CNN whose output is the very map that the branch gives."""
    outputs = []
    with evaluating(cnn), torch.no_grad(), ExitStack() as hooks:
        for module in cnn.base.modules():
            hook = module.register_forward_hook(
                lambda module, _, output: outputs.append((module, output))
            )
            hooks.enter_context(hook)
        local = cnn(image).local
    return next(module for module, output in reversed(outputs) if output is local)


class _Tapped(nn.Module):
    """Images to embeddings, with one stage's local features going through `tap`, where the graph begins."""

    def __init__(self, model: FusionReID, stage: Stage, cameras: Tensor | None):
        super().__init__()
        self.model, self.stage, self.cameras = model, stage, cameras
        self.tap = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        with self.stage.layer.register_forward_hook(self._divert):  # removes it at the end
            embedding = self.model.embed(images, self.cameras)
        if not embedding.requires_grad:
            raise ValueError(
                "Grad-CAM: expected a stage that the features depend on, found one that nothing reads"
            )
        return embedding

    def _divert(self, _layer, _inputs, output):
        if isinstance(output, Tensor):
            return self._tap(output)
        if isinstance(output, BranchOutput):
            return output._replace(local=self._tap(output.local))
        tokens, local = output  # of an SEU
        return tokens, local | {self.stage.branch: self._tap(local[self.stage.branch])}

    def _tap(self, local: Tensor) -> Tensor:
        return self.tap(local.detach().requires_grad_())

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Leaves the model's gradients alone: Grad-CAM makes none."""

    def as_map(self, local: Tensor) -> Tensor:
        """Local tokens (B, N, D), with or without a class token before them, or a map, to (B, D, h, w)."""
        height, width = self.stage.grid
        return (
            local
            if local.ndim == 4
            else rearrange(local[:, -height * width :], "b (h w) d -> b d h w", h=height)
        )


def centred_gradcam() -> type:
    """Grad-CAM of the activations less their mean over all places: those that speak for the target more than the mean.

    Plain Grad-CAM keeps what is above zero, which is nothing where tokens after a LayerNorm have offsets that make the
    weighted sum negative everywhere. For the cosine similarity of an average-pooled map, both are the same.
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
        targets: one for each image, called with its embedding (sum of widths,).
        method: another class of the package; None is `centred_gradcam()`.

    Returns (B, h, w) float32 on the CPU, on the stage's own grid, each map from 0 to 1. Raises ValueError: a map is
    constant or not finite, naming the image, or nothing reads the stage's features.
    """
    if len(targets) != len(images):
        raise ValueError(
            f"targets: expected {len(images)}, one for each image, found {len(targets)}"
        )
    tapped = _Tapped(model, stage, cameras)
    with evaluating(model), torch.enable_grad():
        cam = (method or centred_gradcam())(tapped, [tapped.tap], reshape_transform=tapped.as_map)
        cam.get_target_width_height = lambda _: stage.grid[::-1]  # not stretched to the image
        try:  # not `with cam`, which hides an IndexError
            maps = torch.from_numpy(cam(input_tensor=images, targets=list(targets)))
        finally:
            cam.activations_and_grads.release()
    for index, each in enumerate(maps):
        low, high = float(each.min()), float(each.max())
        if not low < high < float("inf"):
            raise ValueError(
                f"Grad-CAM of image {index}: expected a map that varies, found {low:.3g} to {high:.3g}"
            )
    return maps / maps.amax(dim=(1, 2), keepdim=True)


def gradcam_maps(
    models: Sequence[FusionReID],
    images: Tensor,
    targets: Callable[[FusionReID], list],
    cameras: Tensor | None = None,
) -> dict[tuple[str, str], Tensor]:
    """Fig. 7: for each branch the map of the branch alone, before and after LRU, and after each HTM.

    `models` are FusionReID, and its CNN and its Transformer trained alone; images (B, 3, H, W), normalised. `targets`
    gives the targets of the images in a model, as `similarity_targets` and `class_targets` do.

    Returns (branch, stage) -> (B, h, w) from 0 to 1 on the branch's grid, in the order of Fig. 7.
    """
    maps = {}
    for branch, single in zip(BRANCHES, models[1:], strict=True):
        for net in (single, models[0]):
            chosen = targets(net)
            for name, stage in stages(net, branch, images[:1]).items():
                try:
                    maps[branch, name] = gradcam(net, stage, images, chosen, cameras)
                except ValueError as error:
                    raise ValueError(f"{branch}, {name}: {error}") from error
    return maps


@contextmanager
def record_attention(model: FusionReID) -> Iterator[dict[tuple[int, str, str], Tensor]]:
    """Records, inside, the attention weights of every forward pass; those of the last pass are kept.

    Yields (layer from 1, "seu" or "mfu", branch) -> (B, heads, h, w): weights of the branch's global token to local
    tokens, on their own grid. In "seu" these are the branch's own, in "mfu" the other branch's (Eqs. 6, 7). MFU's sum
    to 1; SEU's to less, as the global token also attends to itself.
    """
    if model.fusion is None or not len(model.fusion.stack):
        raise ValueError(
            "attention maps: expected a model with HTMs (FusionConfig.units), found none"
        )
    grids, maps = model.grids, {}
    modules = {}  # in the order of a forward pass
    for layer, htm in enumerate(model.fusion.stack, start=1):
        for unit in htm.units:
            for branch in BRANCHES:
                modules[layer, unit.name, branch] = unit[branch].attention
    calls = cycle(modules)

    def read(attention: nn.Module, inputs: tuple) -> None:
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
            hooks.enter_context(module.register_forward_pre_hook(read))
        yield maps
