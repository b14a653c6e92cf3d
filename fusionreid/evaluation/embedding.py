"""From images to retrieval vectors, a batch at a time; also from pictures of any kind and size (f_a of Sec. III.D)."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..data import normalise, prefetch
from ..data.cache import decode, fit
from ..devices import autocast
from ..models.fusionreid import FusionReID
from ..options import expect
from ..parallel import gather
from ..processes import bars, cores
from .ranking import whole_numbers


def embed(
    model: FusionReID,
    images_or_paths: Sequence,
    cameras: Sequence[int] | None = None,
    *,
    batch_size: int = 64,
    precision: str = "float32",
    progress: bool = True,
    processes: int = 1,
) -> np.ndarray:
    """Retrieval vectors of pictures: (N, D) float32, L2-normalised, computed on the model's device.

    Pictures are a list of paths, PIL images and uint8 arrays (H, W), (H, W, 1), (H, W, 3), (H, W, 4) or (3, H, W),
    mixed at will, or one array of images; of any size, and turned upright by their EXIF orientation. Cameras (N,) are
    numbers of training, -1 for unseen ones; None: all unseen, no embedding is added. `processes`: see `embed_batches`.

    Raises FileNotFoundError, naming the file; TypeError or ValueError for images of another type or shape, naming a
    file that cannot be decoded, or for cameras that training has not seen.
    """
    expect("model", model, FusionReID)
    last, listed = (
        getattr(images_or_paths, "shape", ())[2:],
        hasattr(images_or_paths, "__getitem__"),
    )
    if (
        not listed or isinstance(images_or_paths, str) or last in ((3,), (4,))
    ):  # an array (H, W, 3) is one, too
        found = " ".join(repr(images_or_paths).split())
        raise TypeError(
            f"images_or_paths: expected a list of paths or images, found one: {found:.60}"
        )
    pictures = Pictures(images_or_paths, model.config.image_size)
    count = len(pictures.images)
    numbers = whole_numbers(np.full(count, -1) if cameras is None else cameras, "cameras", count)
    if model.num_cameras and len(wrong := numbers[(numbers < -1) | (numbers >= model.num_cameras)]):
        raise ValueError(
            f"cameras: expected 0 to {model.num_cameras - 1} (-1: unseen), found {wrong[0]}"
        )
    vectors = np.zeros((len(numbers), sum(model.widths.values())), np.float32)
    for indices, part in embed_batches(
        model, pictures, numbers, batch_size, precision, progress, processes
    ):
        vectors[indices] = part
    return normalised(vectors)


class Pictures:
    """Pictures as `embed` takes them, read by the batch in the model's size, as an `ImageCache` is.

    `unreadable` gets the reason for each index that could not be read, where such pictures are black; None raises.
    """

    def __init__(
        self,
        images: Sequence,
        image_size: tuple[int, int],
        unreadable: dict[int, str] | None = None,
    ):
        self.images, self.image_size, self.unreadable = images, image_size, unreadable

    def batch(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """uint8 (B, 3, H, W)."""
        with ThreadPoolExecutor(
            cores()
        ) as pool:  # threads: PIL decodes and resizes outside Python's lock
            images = list(pool.map(self._pixels, indices))
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device)

    def _pixels(self, index: int) -> np.ndarray:
        image = self.images[index]
        try:
            if isinstance(image, (str, Path)):
                return decode(image, self.image_size)
            return fit(as_image(image), self.image_size)
        except (OSError, ValueError) as error:
            if self.unreadable is None:
                raise
            self.unreadable[index] = str(error)
            return np.zeros((*self.image_size, 3), np.uint8)


def as_image(image) -> Image.Image:
    """A PIL image of one, or of an array or tensor of pixels as `embed` takes them; else TypeError, ValueError."""
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, (np.ndarray, Tensor)):
        raise TypeError(
            f"images_or_paths: expected paths, PIL images or arrays, found {image!r:.60}"
        )
    pixels = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
    if pixels.dtype != np.uint8:
        raise TypeError(
            f"images: expected uint8 pixels, found {image.dtype}; `model.embed` takes normalised floats"
        )
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4) and pixels.shape[0] == 3:
        pixels = pixels.transpose(1, 2, 0)
    pixels = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if (
        0 in pixels.shape
        or pixels.ndim not in (2, 3)
        or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4))
    ):
        found = tuple(image.shape)
        raise ValueError(
            f"images: expected (H, W), (H, W, 1), (H, W, 3), (H, W, 4) or (3, H, W), found {found}"
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
    """All features side by side of one batch after another: (indices, (B, sum of widths) float32).

    `images` are an `ImageCache` or `Pictures`, cameras (N,) int64, -1 for an unseen one; the precision is "float32",
    "bf16" or "fp16". `processes` were launched together and all call this: each computes its share, of up to
    `batch_size`, and gets everything.
    """
    batch_size, processes = (
        expect("batch_size", batch_size, int, 1),
        expect("processes", processes, int, 1),
    )
    step, numbers, device = batch_size * processes, torch.from_numpy(cameras), device_of(model)
    rank = dist.get_rank() if processes > 1 else 0
    batches = [range(low, min(low + step, len(cameras))) for low in range(0, len(cameras), step)]

    def share(
        batch: range,
    ) -> list[int]:  # as many for each process, so the last index is repeated, and cut off below
        size = -(-len(batch) // processes)
        return [
            min(index, batch[-1])
            for index in range(batch[0] + rank * size, batch[0] + (rank + 1) * size)
        ]

    bar = tqdm(batches, desc="embed", disable=rank > 0 or not bars(progress), leave=False, delay=1)
    with evaluating(model):
        for batch, (indices, pixels) in zip(
            batches, prefetch(images, map(share, bar), device), strict=True
        ):
            with torch.inference_mode(), autocast(device, precision):
                vectors = model.embed(normalise(pixels.to(device)), numbers[indices].to(device))
                vectors = gather(vectors.float(), processes)[: len(batch)]
            yield batch, vectors.cpu().numpy()


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, D) divided by their length."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients of parameters; afterwards each module and parameter is as it was."""
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
