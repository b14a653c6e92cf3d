"""Flip, padded crop and random erasing (Sec. IV.B) on whole batches, on the device that trains.

The usual pipeline treats one PIL image after another. Here each image of a batch still has its own draw, all drawn at
once; an accelerator then works on the whole batch, and a CPU on one image at a time, in memory that its cache holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..config import one_of

CACHED = 2  # images whose float32 a CPU's cache holds
ATTEMPTS = 10  # boxes drawn for each image to find one that fits, as the usual code does
_MINUS_ONE = torch.tensor(-1.0)


def normalise(images: Tensor) -> Tensor:
    """(x / 255 - 0.5) / 0.5 of uint8 images (B, 3, H, W): float32 in -1 to 1, in the memory format of `images`."""
    _check(images)
    out = torch.empty_like(images, dtype=torch.float32)
    step = CACHED if images.device.type == "cpu" else max(1, len(images))
    for part, target in zip(images.split(step), out.split(step), strict=True):
        _scale(part, target)
    return out


class Draw(NamedTuple):
    """What chance decided for the images of one batch.

    Attributes:
        flip: (B,) bool.
        top, left: (B,) int64, the crop's corner in the padded image, 0 to 2 x padding; padding is no shift.
        box: (B, 4) int64, top, bottom, left, right of the erased box in the crop, ends excluded; 0 = none.
    """

    flip: Tensor
    top: Tensor
    left: Tensor
    box: Tensor


class Augment:
    """Augments and normalises batches.

    In this order, as the usual code does: a horizontal flip; black pixels padded on all sides and a random crop of
    the image's own size; random erasing (Zhong et al., AAAI 2020) of one box; (x / 255 - 0.5) / 0.5. A box that does
    not fit is drawn again, ten times; then the image stays whole.

    Args:
        flip: probability of the flip.
        padding: pixels padded on each side before the crop.
        erasing: probability of the erasing.
        area: least and largest erased share of the image.
        aspect: least and largest height / width of the box, log-uniform.
        fill: "uniform", every value of the box anew from 0 to 255, as Zhong et al. write; or "normal", a standard
            normal in normalised space, as the "pixel" mode of timm, which many re-identification codes use.
    """

    def __init__(
        self,
        flip: float = 0.5,
        padding: int = 10,
        erasing: float = 0.5,
        *,
        area: tuple[float, float] = (0.02, 0.4),
        aspect: tuple[float, float] = (0.3, 1 / 0.3),
        fill: str = "uniform",
    ):
        for name, value in (("flip", flip), ("erasing", erasing)):
            if not 0 <= value <= 1:
                raise ValueError(f"Augment: {name}={value}; expected a probability, 0 to 1")
        if padding < 0 or int(padding) != padding:
            raise ValueError(f"Augment: padding={padding}; expected a number of pixels, 0 or more")
        if not 0 < area[0] <= area[1] <= 1 or not 0 < aspect[0] <= aspect[1]:
            raise ValueError(f"Augment: area={area}, aspect={aspect}; expected (least, largest), above 0, area up to 1")
        one_of("Augment: fill", fill, ["uniform", "normal"])
        self.flip, self.padding, self.erasing = flip, int(padding), erasing
        self.area, self.aspect, self.fill = area, aspect, fill

    def __call__(
        self, images: Tensor, generator: torch.Generator | None = None, *, out: Tensor | None = None
    ) -> Tensor:
        """Augments one batch.

        Args:
            images: (B, 3, H, W) uint8, on any device; fastest with channels last in memory, as `ImageCache` gives.
            generator: on the CPU (the same flips, crops and boxes on every device, and the host never waits for the
                accelerator), or on the images' device. None is torch's own on the CPU.
            out: (B, 3, H, W) float32, channels last, to write to. Large batches on a CPU gain by it: a third of
                their time is the operating system's, which hands out fresh memory.

        Returns:
            (B, 3, H, W) float32, normalised, on the device of `images`, channels last in memory.
        """
        _check(images)
        draw = self.draw(len(images), images.shape[2], images.shape[3], generator)
        return self.apply(images, draw, generator, out=out)

    def draw(self, batch: int, height: int, width: int, generator: torch.Generator | None = None) -> Draw:
        """Draws for a batch of images of height x width pixels, on the generator's device."""
        device = generator.device if generator is not None else torch.device("cpu")
        uniform = torch.rand(batch, 4 + 4 * ATTEMPTS, generator=generator, device=device)
        shift = (uniform[:, 2:4] * (2 * self.padding + 1)).long().clamp_(max=2 * self.padding)
        area, aspect, top, left = uniform[:, 4:].reshape(batch, 4, ATTEMPTS).unbind(1)  # each (B, attempts)
        area = height * width * (self.area[0] + area * (self.area[1] - self.area[0]))
        low, high = math.log(self.aspect[0]), math.log(self.aspect[1])
        aspect = torch.exp(low + aspect * (high - low))
        rows, columns = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
        fits = (rows < height) & (columns < width) & (rows > 0) & (columns > 0)
        top, left = (top * (height - rows + 1)).floor(), (left * (width - columns + 1)).floor()
        boxes = torch.stack([top, top + rows, left, left + columns], dim=-1)  # (B, attempts, 4)
        first = fits.int().argmax(1)[:, None, None].expand(-1, 1, 4)
        box = boxes.gather(1, first)[:, 0].long()
        erased = fits.any(1) & (uniform[:, 1] < self.erasing)
        return Draw(uniform[:, 0] < self.flip, shift[:, 0], shift[:, 1], box * erased[:, None])

    def apply(
        self, images: Tensor, draw: Draw, generator: torch.Generator | None = None, *, out: Tensor | None = None
    ) -> Tensor:
        """Augments a batch as `draw` says; only what fills the erased boxes is taken from `generator`."""
        pixels = images.permute(0, 2, 3, 1)  # (B, H, W, 3)
        out = _output(pixels, out)
        if images.device.type == "cpu":
            self._apply_one_by_one(pixels, draw, generator, out)
        else:
            self._apply_at_once(pixels, draw, generator, out)
        return out.permute(0, 3, 1, 2)

    def _apply_at_once(self, pixels: Tensor, draw: Draw, generator: torch.Generator | None, out: Tensor) -> None:
        cropped = crop_at_once(pixels, draw, self.padding)
        if self.fill == "uniform":
            _fill(cropped, draw.box, generator)
        _scale(cropped, out)
        if self.fill == "normal":
            _fill(out, draw.box, generator)

    def _apply_one_by_one(self, pixels: Tensor, draw: Draw, generator: torch.Generator | None, out: Tensor) -> None:
        rows = draw.box[:, 1] - draw.box[:, 0]
        noise = _noise((int(rows.sum()), *pixels.shape[2:]), pixels if self.fill == "uniform" else out, generator)
        noise = noise.split(rows.tolist())
        cropped = torch.empty_like(pixels[0], memory_format=torch.contiguous_format)
        draws = zip(*(part.tolist() for part in draw), strict=True)
        for image, target, fill, (flip, top, left, box) in zip(pixels, out, noise, draws, strict=True):
            crop_one(image.flip(1) if flip else image, top - self.padding, left - self.padding, cropped)
            if self.fill == "uniform":
                _erase(cropped, box, fill)
            _scale(cropped, target)
            if self.fill == "normal":
                _erase(target, box, fill)


def crop_at_once(pixels: Tensor, draw: Draw, padding: int) -> Tensor:
    """Flips, pads and crops (B, H, W, C) in one indexing, for accelerators."""
    batch, height, width, _ = pixels.shape
    flip, top, left = (part.to(pixels.device, non_blocking=True)[:, None] for part in draw[:3])
    padded = pixels.new_zeros(batch, height + 2 * padding, width + 2 * padding, pixels.shape[3])
    padded[:, padding : padding + height, padding : padding + width] = pixels
    rows = top + torch.arange(height, device=pixels.device)  # (B, H)
    columns = left + torch.arange(width, device=pixels.device)  # (B, W)
    columns = torch.where(flip, width + 2 * padding - 1 - columns, columns)
    image = torch.arange(batch, device=pixels.device)
    return padded[image[:, None, None], rows[:, :, None], columns[:, None, :]]


def crop_one(image: Tensor, down: int, right: int, out: Tensor) -> None:
    """Writes the image (H, W, C) from `down` rows and `right` columns further on, black beyond its edges, to `out`."""
    height, width, _ = image.shape
    top, bottom = min(max(0, -down), height), max(0, min(height, height - down))
    first, last = min(max(0, -right), width), max(0, min(width, width - right))
    out.zero_()  # all of it: that costs less than four edges
    # numpy's slices cost less than a tensor's.
    out.numpy()[top:bottom, first:last] = image.numpy()[top + down : bottom + down, first + right : last + right]


def _erase(image: Tensor, box: list[int], noise: Tensor) -> None:
    """Fills one box of an image (H, W, C) from its noise (rows of the box, W, C)."""
    top, bottom, left, right = box
    image.numpy()[top:bottom, left:right] = noise.numpy()[:, left:right]


def _fill(pixels: Tensor, box: Tensor, generator: torch.Generator | None) -> None:
    """Fills the boxes (B, 4) of images (B, H, W, C) in place, for accelerators.

    The rows that a box touches are taken out, filled between its columns, and put back.
    """
    batch, height, width, channels = pixels.shape
    num_rows = int((box[:, 1] - box[:, 0]).sum())  # the host does not wait if the draw was made there
    if num_rows == 0:
        return
    device = pixels.device
    top, bottom, left, right = box.to(device, non_blocking=True).unbind(1)
    rows = bottom - top
    image = torch.arange(batch, device=device).repeat_interleave(rows, output_size=num_rows)  # of each erased row
    row = torch.arange(num_rows, device=device) + (image * height) + (top - (rows.cumsum(0) - rows))[image]
    x = torch.arange(width, device=device)
    inside = ((x >= left[:, None]) & (x < right[:, None])).index_select(0, image)[:, :, None]
    lines = pixels.reshape(batch * height, width, channels)
    noise = _noise((num_rows, width, channels), pixels, generator)
    lines.index_copy_(0, row, torch.where(inside, noise, lines.index_select(0, row)))


def _noise(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Values for erased rows, drawn for their whole width in the order image, row: uint8 uniform, or float normal."""
    device, count = like.device, math.prod(shape)
    if generator is not None and generator.device != device:
        generator = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    if like.dtype != torch.uint8:
        return torch.randn(shape, generator=generator, device=device, dtype=like.dtype)
    if count == 0:
        return torch.empty(shape, dtype=torch.uint8, device=device)
    words = torch.empty(count // 8 + 1, dtype=torch.int64, device=device)  # eight values a draw
    return words.random_(-(2**63), None, generator=generator).view(torch.uint8)[:count].reshape(shape)


def _scale(values: Tensor, out: Tensor) -> Tensor:
    """values x 2 / 255 - 1 of uint8, written to `out`."""
    return torch.add(_MINUS_ONE, out.copy_(values), alpha=2 / 255, out=out)


def _output(pixels: Tensor, out: Tensor | None) -> Tensor:
    """(B, H, W, 3) float32 to write to: `out`, if there is one, seen so."""
    if out is None:
        return empty(pixels.shape, torch.float32, pixels.device)
    out = out.permute(0, 2, 3, 1)
    if out.shape != pixels.shape or out.dtype != torch.float32 or not out.is_contiguous():
        batch, height, width, channels = pixels.shape
        raise ValueError(f"out: expected float32 {(batch, channels, height, width)}, channels last in memory")
    return out


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """Fresh memory; a CPU's from numpy, which asks Linux for huge pages: handing those out takes half the time."""
    if torch.device(device).type == "cpu":
        return torch.from_numpy(np.empty(tuple(shape), str(dtype).removeprefix("torch.")))
    return torch.empty(shape, dtype=dtype, device=device)


def _check(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        raise ValueError(
            f"images: expected uint8 (B, 3, H, W), found {str(images.dtype).removeprefix('torch.')} "
            f"{tuple(images.shape)}"
        )
