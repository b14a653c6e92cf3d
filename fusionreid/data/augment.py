"""Flip, padded crop and random erasing (Sec. IV.B) on whole batches, on the device that trains.

The usual pipeline treats one PIL image after another; here each image of a batch still has its own draw, and the
work is a few tensor operations on all of them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

ATTEMPTS = 10  # boxes drawn for each image to find one that fits, as the usual code does


def normalise(images: Tensor) -> Tensor:
    """(x / 255 - 0.5) / 0.5 of uint8 images (B, 3, H, W): float32 in -1 to 1, in the memory format of `images`."""
    _check(images)
    return images.to(torch.float32).mul_(2 / 255).sub_(1)


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
    the image's own size; (x / 255 - 0.5) / 0.5; random erasing (Zhong et al., AAAI 2020) of one box, filled with
    standard normal noise, a draw for each pixel and channel. A box that does not fit is drawn again, ten times;
    then the image stays whole.

    Args:
        flip: probability of the flip.
        padding: pixels padded on each side before the crop.
        erasing: probability of the erasing.
        area: least and largest erased share of the image.
        aspect: least and largest height / width of the box, log-uniform.
        fill: "noise", or "mean": 0 in normalised space, a grey of 127.5.
    """

    def __init__(self, flip: float = 0.5, padding: int = 10, erasing: float = 0.5, *,
                 area: tuple[float, float] = (0.02, 0.4), aspect: tuple[float, float] = (0.3, 1 / 0.3),
                 fill: str = "noise"):
        for name, value in (("flip", flip), ("erasing", erasing)):
            if not 0 <= value <= 1:
                raise ValueError(f"Augment: {name}={value}; expected a probability, 0 to 1")
        if padding < 0 or int(padding) != padding:
            raise ValueError(f"Augment: padding={padding}; expected a number of pixels, 0 or more")
        if not 0 < area[0] <= area[1] <= 1 or not 0 < aspect[0] <= aspect[1]:
            raise ValueError(f"Augment: area={area}, aspect={aspect}; expected (least, largest), above 0, area up to 1")
        if fill not in ("noise", "mean"):
            raise ValueError(f"Augment: fill={fill!r}; it is one of: 'noise', 'mean'")
        self.flip, self.padding, self.erasing = flip, int(padding), erasing
        self.area, self.aspect, self.fill = area, aspect, fill

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augments one batch.

        Args:
            images: (B, 3, H, W) uint8, on any device.
            generator: on the CPU (the same draws whatever the device trains) or on the images' device; None is
                torch's own generator.

        Returns:
            (B, 3, H, W) float32, normalised, on the device and in the memory format of `images`.
        """
        _check(images)
        draw = self.draw(len(images), images.shape[2], images.shape[3], generator)
        return self.apply(images, draw, generator)

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

    def apply(self, images: Tensor, draw: Draw, generator: torch.Generator | None = None) -> Tensor:
        """Augments a batch as `draw` says; only the noise of the erased boxes is taken from `generator`."""
        draw = Draw(*(part.to(images.device, non_blocking=True) for part in draw))
        cropped = self._crop(images, draw)
        return self._erase(normalise(cropped), draw.box, generator)

    def _crop(self, images: Tensor, draw: Draw) -> Tensor:
        """Flip, pad and crop of uint8 images."""
        if self.flip:
            images = torch.where(draw.flip[:, None, None, None], images.flip(3), images)
        if not self.padding:
            return images
        images = images.permute(0, 2, 3, 1)  # (B, H, W, 3)
        batch, height, width, channels = images.shape
        pad, shifts = self.padding, 2 * self.padding + 1
        padded = images.new_zeros(batch, height + 2 * pad, width + 2 * pad, channels)
        padded[:, pad : pad + height, pad : pad + width] = images
        # Every crop of every image as a view; indexing then copies one of each: no loop, no index for each pixel.
        image, row, column, channel = padded.stride()
        crops = padded.as_strided((batch, shifts, shifts, height, width, channels),
                                  (image, row, column, row, column, channel))
        return crops[torch.arange(batch, device=images.device), draw.top, draw.left].permute(0, 3, 1, 2)

    def _erase(self, images: Tensor, box: Tensor, generator: torch.Generator | None) -> Tensor:
        """Fills the boxes of normalised images, in place."""
        if not self.erasing:
            return images
        _, _, height, width = images.shape
        y, x = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
        top, bottom, left, right = box[:, :, None].unbind(1)  # each (B, 1)
        rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)  # (B, H), (B, W)
        mask = rows[:, :, None] & columns[:, None, :]  # (B, H, W)
        if self.fill == "mean":
            return images.masked_fill_(mask[:, None], 0)
        if images.device.type == "cpu":  # noise for the erased pixels alone
            pixels = mask.nonzero(as_tuple=True)
            images.permute(0, 2, 3, 1)[pixels] = torch.randn(len(pixels[0]), 3, generator=generator)
            return images
        # On an accelerator noise is cheap, and counting the pixels would make the host wait.
        if generator is not None and generator.device != images.device:
            seed = int(torch.randint(2**62, (), generator=generator))
            generator = torch.Generator(images.device).manual_seed(seed)
        noise = torch.empty_like(images).normal_(generator=generator)
        return torch.where(mask[:, None], noise, images)


def _check(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        raise ValueError(f"images: expected uint8 (B, 3, H, W), found {str(images.dtype).removeprefix('torch.')} "
                         f"{tuple(images.shape)}")
