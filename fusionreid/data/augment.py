"""Flip, padded crop and random erasing (Sec. IV.B) on whole batches, on the device that trains.

The usual pipeline treats one PIL image after another; here each image of a batch still has its own draw, and the
work is a few tensor operations on all of them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import one_of

ATTEMPTS = 10  # boxes drawn for each image to find one that fits, as the usual code does
PART = 32  # images that a CPU works on at a time, to stay within its cache
CACHED = 2  # images that it holds in float32
_MINUS_ONE = torch.tensor(-1.0)


def normalise(images: Tensor) -> Tensor:
    """(x / 255 - 0.5) / 0.5 of uint8 images (B, 3, H, W): float32 in -1 to 1, in the memory format of `images`."""
    _check(images)
    return _scale(images, torch.empty_like(images, dtype=torch.float32))


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

    def __init__(self, flip: float = 0.5, padding: int = 10, erasing: float = 0.5, *,
                 area: tuple[float, float] = (0.02, 0.4), aspect: tuple[float, float] = (0.3, 1 / 0.3),
                 fill: str = "uniform"):
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

    def __call__(self, images: Tensor, generator: torch.Generator | None = None, *, out: Tensor | None = None
                 ) -> Tensor:
        """Augments one batch.

        Args:
            images: (B, 3, H, W) uint8, on any device; fastest with channels last in memory, as `ImageCache` gives.
            generator: on the CPU (the same flips, crops and boxes on every device, and the host never waits for the
                accelerator), or on the images' device. None is torch's own on the CPU.
            out: (B, 3, H, W) float32, channels last, to write to. Large batches on a CPU gain by it: a third of
                their time is the operating system's, handing out fresh memory.

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

    def apply(self, images: Tensor, draw: Draw, generator: torch.Generator | None = None, *,
              out: Tensor | None = None) -> Tensor:
        """Augments a batch as `draw` says; only what fills the erased boxes is taken from `generator`."""
        pixels = images.permute(0, 2, 3, 1)  # (B, H, W, 3)
        out = _output(pixels, out)
        if images.device.type == "cpu":
            work = Workspace(pixels, self.padding)
            for start in range(0, len(images), PART):
                part = slice(start, start + PART)
                cropped = crop_whole(pixels[part], Draw(*(values[part] for values in draw)), self.padding, work)
                self._finish(cropped, draw.box[part], generator, out[part])
        else:
            self._finish(crop_pixels(pixels, draw, self.padding), draw.box, generator, out)
        return out.permute(0, 3, 1, 2)

    def _finish(self, pixels: Tensor, box: Tensor, generator: torch.Generator | None, out: Tensor) -> None:
        if self.fill == "uniform":
            _fill(pixels, box, generator)
        _scale(pixels, out)
        if self.fill == "normal":
            _fill(out, box, generator)


class Workspace:
    """Memory for PART images, which the parts of a batch use in turn: fresh memory costs more than what fills it."""

    def __init__(self, pixels: Tensor, padding: int):
        _, height, width, channels = pixels.shape
        self.margin = padding * (width + 1)  # pixels before the first image and after the last
        self.shifted = pixels.new_empty((PART * height * width + 2 * self.margin) * channels)
        self.crops = pixels.new_empty(PART, height * width * channels)


def crop_pixels(pixels: Tensor, draw: Draw, padding: int) -> Tensor:
    """Flip, pad and crop of (B, H, W, C) in one indexing, for accelerators."""
    batch, height, width, _ = pixels.shape
    flip, top, left = (part.to(pixels.device, non_blocking=True)[:, None] for part in draw[:3])
    padded = pixels.new_zeros(batch, height + 2 * padding, width + 2 * padding, pixels.shape[3])
    padded[:, padding : padding + height, padding : padding + width] = pixels
    rows = top + torch.arange(height, device=pixels.device)  # (B, H)
    columns = left + torch.arange(width, device=pixels.device)  # (B, W)
    columns = torch.where(flip, width + 2 * padding - 1 - columns, columns)
    image = torch.arange(batch, device=pixels.device)
    return padded[image[:, None, None], rows[:, :, None], columns[:, None, :]]


def crop_whole(pixels: Tensor, draw: Draw, padding: int, work: Workspace) -> Tensor:
    """The same of up to PART images on a CPU, where copying whole images is ten times faster than indexing pixels.

    A crop that is some rows lower and some pixels further right is, in memory, the image from a later pixel on. So the
    images are copied from their shifted start, and what came in from beyond their edges is made black.
    """
    batch, height, width, channels = pixels.shape
    order = draw.flip.argsort(descending=True)  # the flipped images first
    place, num_flipped, size = order.argsort(), int(draw.flip.sum()), height * width * channels
    ordered = work.shifted[work.margin * channels :][: batch * size].reshape(pixels.shape)
    torch.index_select(pixels, 0, order, out=ordered)
    ordered[:num_flipped] = ordered[:num_flipped].flip(2)
    # Every run of H x W pixels, as a view; one copy takes those of the crops.
    runs = work.shifted.as_strided(((work.shifted.numel() - size) // channels + 1, size), (channels, 1))
    down, right = draw.top - padding, draw.left - padding
    crops = work.crops[:batch]
    torch.index_select(runs, 0, work.margin + (place * height + down) * width + right, out=crops)
    if padding:
        y, x = torch.arange(height) + down[:, None], torch.arange(width) + right[:, None]  # (B, H), (B, W)
        rows, columns = _ones((y >= 0) & (y < height)), _ones((x >= 0) & (x < width))
        columns, edge = columns.repeat_interleave(channels, dim=1)[:, None], padding * channels
        lines = crops.reshape(batch, height, width * channels)
        for start, end in ((slice(None, padding), slice(None, edge)), (slice(-padding, None), slice(-edge, None))):
            lines[:, start].bitwise_and_(rows[:, start, None])
            lines[:, :, end].bitwise_and_(columns[:, :, end])
    return crops.reshape(pixels.shape)


def _fill(pixels: Tensor, box: Tensor, generator: torch.Generator | None) -> None:
    """Fills the boxes (B, 4) of images (B, H, W, C) in place: uint8 with uniform, float with normal values.

    The rows that a box touches are taken out, filled between its columns, and put back; values are drawn for whole
    rows, in the order image, row.
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
    inside = ((x >= left[:, None]) & (x < right[:, None])).repeat_interleave(channels, dim=1)  # (B, W C)
    lines = pixels.reshape(batch * height, width * channels)
    old = lines.index_select(0, row)
    if generator is not None and generator.device != device:
        generator = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    if pixels.dtype == torch.uint8:  # eight values a draw; where inside is all ones: old ^ (new ^ old) = new
        words = torch.empty(old.numel() // 8 + 1, dtype=torch.int64, device=device)
        new = words.random_(-(2**63), None, generator=generator).view(torch.uint8)[: old.numel()].reshape(old.shape)
        new.bitwise_xor_(old).bitwise_and_(_ones(inside).index_select(0, image)).bitwise_xor_(old)
    else:
        new = torch.randn(old.shape, generator=generator, device=device, dtype=old.dtype)
        new = torch.where(inside.index_select(0, image), new, old)
    if device.type == "cpu":
        lines.numpy()[row.numpy()] = new.numpy()  # many times faster than index_copy_ there
    else:
        lines.index_copy_(0, row, new)


def _ones(where: Tensor) -> Tensor:
    """uint8 with all bits set where `where` is true."""
    return where.to(torch.uint8).neg_()


def _scale(values: Tensor, out: Tensor) -> Tensor:
    """values x 2 / 255 - 1 of uint8, written to `out`."""
    step = CACHED if values.device.type == "cpu" else max(1, len(values))
    for part, target in zip(values.split(step), out.split(step), strict=True):
        torch.add(_MINUS_ONE, target.copy_(part), alpha=2 / 255, out=target)
    return out


def _output(pixels: Tensor, out: Tensor | None) -> Tensor:
    """(B, H, W, 3) float32 to write to: `out`, if there is one, seen so."""
    if out is None:
        return torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device)
    out = out.permute(0, 2, 3, 1)
    if out.shape != pixels.shape or out.dtype != torch.float32 or not out.is_contiguous():
        batch, height, width, channels = pixels.shape
        raise ValueError(f"out: expected float32 {(batch, channels, height, width)}, channels last in memory")
    return out


def _check(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        raise ValueError(f"images: expected uint8 (B, 3, H, W), found {str(images.dtype).removeprefix('torch.')} "
                         f"{tuple(images.shape)}")
