"""From pictures of any kind and size to retrieval vectors (f_a of Sec. III.B), batch by batch."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image, ImageOps
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..data import normalise, prefetch
from ..data.cache import decode, fit, on_all_cores, opened
from ..devices import autocast
from ..models.fusionreid import FusionReID
from ..options import expect
from ..parallel import gather
from ..processes import bars
from .ranking import whole_numbers


def embed(
    model: FusionReID,
    images_or_paths: Sequence,
    cameras: Sequence[int] | None = None,
    *,
    boxes: Sequence | None = None,
    batch_size: int = 64,
    precision: str = "float32",
    progress: bool = True,
) -> np.ndarray:
    """Retrieval vectors of pictures: (N, D) float32, L2-normalised, computed on the model's device.

    Args:
        images_or_paths: a list of paths, PIL images and uint8 arrays of RGB pixels, (H, W),
            (H, W, 1), (H, W, 3), (H, W, 4) or (3, H, W), mixed at will; or one array of images.
            They may have any size. What is transparent is black. OpenCV gives BGR: reverse the
            last axis first. With `boxes` it is one of these, a whole frame.
        cameras: (N,) camera numbers of training, -1 for unseen ones. None: all are unseen, so that
            no camera embedding is added.
        boxes: (N, 4), a detector's x1, y1, x2, y2 in pixels of the frame, which is turned upright
            first. Each is one picture; what reaches outside is cut off.

    Raises:
        FileNotFoundError: a file, which is named, is not there.
        TypeError, ValueError: an image has another type or shape, a file, which is named, cannot be
            decoded, training has not seen a camera, or a box, which is named by its index, is
            empty or outside the frame.
    """
    expect("model", model, FusionReID)
    if boxes is not None:
        images_or_paths = cut(images_or_paths, boxes)
    _expect_several(images_or_paths)
    count = len(images_or_paths)
    cameras = whole_numbers([-1] * count if cameras is None else cameras, "cameras", count)
    unknown = cameras[(cameras < -1) | (cameras >= model.num_cameras)]
    if model.num_cameras and len(unknown):
        raise ValueError(
            f"cameras: expected 0 to {model.num_cameras - 1} (-1: unseen), found {unknown[0]}"
        )
    pictures = Pictures(images_or_paths, model.config.image_size)
    vectors = np.zeros((count, sum(model.widths.values())), np.float32)
    for indices, batch in embed_batches(model, pictures, cameras, batch_size, precision, progress):
        vectors[indices] = batch
    return normalised(vectors)


def cut(frame, boxes: Sequence) -> list[Image.Image]:
    """The parts of a frame, a picture as `embed` takes it, in boxes (N, 4) as `embed` takes them.

    Fractions of pixels are rounded outwards.
    """
    if isinstance(frame, (str, Path)):
        with opened(frame) as image:
            upright = ImageOps.exif_transpose(image)
    else:
        upright = ImageOps.exif_transpose(as_image(frame))
    if isinstance(boxes, Tensor):
        boxes = boxes.detach().cpu()
    corners = np.asarray(boxes, float) if len(boxes) else np.empty((0, 4))
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise ValueError(f"boxes: expected shape (boxes, 4), found {corners.shape}")
    size = np.array(upright.size)
    low = np.clip(np.floor(corners[:, :2]), 0, size)
    high = np.clip(np.ceil(corners[:, 2:]), 0, size)
    is_full = (corners[:, :2] < corners[:, 2:]) & (low < high)  # a NaN is neither
    for index in np.flatnonzero(~is_full.all(axis=1)):
        raise ValueError(
            f"boxes[{index}]: expected x1 < x2 and y1 < y2, in a frame of "
            f"{size[0]} x {size[1]} pixels, found {corners[index].tolist()}"
        )
    parts = np.hstack([low, high]).astype(int)
    return [upright.crop(part) for part in parts.tolist()]


def _expect_several(images) -> None:
    """Refuses one picture in place of a list: a path, a PIL image, or one array."""
    shape = getattr(images, "shape", ())
    has_channels = len(shape) == 3 and (shape[0] == 3 or shape[2] in (1, 3, 4))
    is_one_array = len(shape) == 2 or has_channels
    if isinstance(images, str) or not hasattr(images, "__getitem__") or is_one_array:
        shown = " ".join(repr(images).split())
        raise TypeError(
            f"images_or_paths: expected a list of paths or images, found one: {shown:.60}"
        )


@dataclass
class Pictures:
    """Pictures as `embed` takes them, decoded batch by batch; it stands in for an `ImageCache`.

    With a dictionary `unreadable`, a path that cannot be read is a black picture, and the
    dictionary gets the reason by the path. Without it, such a picture raises.
    """

    images: Sequence
    image_size: tuple[int, int]
    unreadable: dict[Path, str] | None = None

    def batch(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """uint8 (B, 3, H, W)."""
        pixels = np.stack(list(on_all_cores(self._pixels, indices)))
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)

    def _pixels(self, index: int) -> np.ndarray:
        image = self.images[index]
        try:
            if isinstance(image, (str, Path)):
                return decode(image, self.image_size)
            return fit(as_image(image), self.image_size)
        except (OSError, ValueError) as error:
            if self.unreadable is None:
                raise
            self.unreadable[image] = str(error)
            return np.zeros((*self.image_size, 3), np.uint8)


def as_image(image) -> Image.Image:
    """A PIL image from one, or from an array or tensor of pixels as `embed` takes them.

    Raises TypeError or ValueError, as `embed` says.
    """
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, (np.ndarray, Tensor)):
        raise TypeError(
            f"images_or_paths: expected paths, PIL images or arrays, found {image!r:.60}"
        )
    pixels = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
    if pixels.dtype != np.uint8:
        raise TypeError(
            f"images: expected uint8 pixels, found {image.dtype}; "
            "`model.embed` takes normalised floats"
        )
    if pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.shape[2] not in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.shape[2:] == (1,):
        pixels = pixels[:, :, 0]
    if pixels.shape[2:] not in ((), (3,), (4,)) or pixels.ndim < 2 or 0 in pixels.shape:
        raise ValueError(
            "images: expected (H, W), (H, W, 1), (H, W, 3), (H, W, 4) or (3, H, W), "
            f"found {tuple(image.shape)}"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def embed_batches(
    model: FusionReID,
    images,
    cameras: np.ndarray,
    batch_size: int = 128,
    precision: str = "float32",
    progress: bool = False,
    processes: int = 1,
) -> Iterator[tuple[range, np.ndarray]]:
    """Yields batch after batch: the images' indices, and all their features side by side.

    Args:
        images: an `ImageCache` or `Pictures`.
        cameras: (N,) int64, -1 for an unseen one.
        batch_size: of one process.
        precision: "float32", "bf16" or "fp16".
        processes: were launched together and all call this. Each computes its share of a batch,
            and gets the whole.

    Yields (range of indices, (B, sum of widths) float32).
    """
    batch_size = expect("batch_size", batch_size, int, 1)
    processes = expect("processes", processes, int, 1)
    device = device_of(model)
    cameras = torch.from_numpy(cameras)
    rank = dist.get_rank() if processes > 1 else 0
    step = batch_size * processes
    batches = [range(low, min(low + step, len(cameras))) for low in range(0, len(cameras), step)]

    def share(batch: range) -> list[int]:
        """This process's indices. All processes need equally many, so the last one is repeated."""
        size = math.ceil(len(batch) / processes)
        first = batch[0] + rank * size
        return [min(index, batch[-1]) for index in range(first, first + size)]

    hidden = rank > 0 or not bars(progress)
    bar = tqdm(total=len(cameras), desc="embed", unit="image", disable=hidden, leave=False, delay=1)
    shares = prefetch(images, map(share, batches), device)
    with evaluating(model), bar:
        for batch, (indices, pixels) in zip(batches, shares, strict=True):
            with torch.inference_mode(), autocast(device, precision):
                vectors = model.embed(normalise(pixels), cameras[indices].to(device))
                vectors = gather(vectors.float(), processes)
            yield batch, vectors[: len(batch)].cpu().numpy()
            bar.update(len(batch))


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, D) divided by their length."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, without gradients of parameters. Afterwards all is as it was before."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)
