"""Images decoded and resized once, kept in a memory-mapped file and read from it by the batch."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from ..files import atomic_write, locked, mistaken
from ..options import one_of
from ..processes import bars, cores

DECODER = "PIL, RGB, 3"  # part of a cache's digest: change it whenever `decode` gives other pixels
BLOCK = 1024  # images that are decoded before the next ones are begun
# What PIL's decoders raise for a damaged file.
DAMAGED = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def decode(
    path: str | Path, image_size: tuple[int, int], interpolation: str = "bilinear"
) -> np.ndarray:
    """Reads one image as RGB, turned upright by its EXIF orientation and resized (antialiased).

    What is transparent is black. Returns uint8 (H, W, 3). Raises FileNotFoundError; or ValueError,
    which names the file, if it cannot be decoded or has more than 8 bits a channel.
    """
    with opened(path) as image:
        return fit(image, image_size, interpolation)


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """An image file, to be decoded inside the context; raises as `decode`."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise
    except DAMAGED as error:
        reason = mistaken(path) if os.path.isfile(path) else ""
        raise ValueError(
            f"{path}: expected an image, found what cannot be decoded ({reason or error})"
        ) from error


def fit(
    image: Image.Image, image_size: tuple[int, int], interpolation: str = "bilinear"
) -> np.ndarray:
    """Turns and resizes an opened image as `decode` does: uint8 (H, W, 3).

    Raises ValueError for more than 8 bits a channel; PIL's errors for a damaged file.
    """
    height, width = image_size
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        # PIL would clip the values at 255 instead of scaling them.
        raise ValueError(f"more than 8 bits a channel, mode {image.mode}; save it with 8 bits")
    if image.has_transparency_data:
        # A cut-out may keep its old background under the transparency. It must not be seen.
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image.convert("RGBA"))
    image = image.convert("RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling[interpolation.upper()])
    return np.asarray(image)


def on_all_cores(work: Callable, items: Sequence) -> Iterator:
    """What `work` gives for each item, in order.

    Threads are enough: PIL decodes and resizes outside Python's lock.
    """
    with ThreadPoolExecutor(cores()) as pool:
        yield from pool.map(work, items)


def load_images(paths: Sequence[str | Path], image_size: tuple[int, int]) -> Tensor:
    """Reads images without a cache, resized bilinearly: uint8 (N, 3, H, W).

    Raises as `decode` does.
    """
    images = on_all_cores(partial(decode, image_size=image_size), paths)
    pixels = np.array(list(images), np.uint8).reshape(-1, *image_size, 3)  # also where none is
    return rearrange(torch.from_numpy(pixels), "n h w c -> n c h w")


def unreadable(paths: Sequence[str | Path]) -> list[str]:
    """Decodes images, and says of each that cannot be decoded why; the message names the file."""

    def problem(path: str | Path) -> str:
        try:
            decode(path, (16, 8))
        except (OSError, ValueError) as error:
            return str(error)
        return ""

    return [message for message in on_all_cores(problem, paths) if message]


class ImageCache:
    """The decoded and resized images of a list of records, which are paths, or have a `path`.

    The first use decodes the images on all cores into one file; later uses map it into memory. One
    process makes the file, and the others wait. The file's name has a digest of the images' paths,
    sizes in bytes and dates of change: when an image changes, another file is made in its place.
    Training images are resized with interpolation "bicubic", test images with "bilinear", both
    antialiased.

    Attributes:
        images: all images, read-only, uint8 (N, H, W, 3).

    Raises FileNotFoundError or ValueError, naming the image that is missing or cannot be decoded;
    OSError, naming the cache's file, if the disk is full or read-only.
    """

    def __init__(
        self,
        records: Sequence,
        image_size: tuple[int, int],
        directory: str | Path,
        *,
        interpolation: str = "bilinear",
        progress: bool = True,
    ):
        one_of("ImageCache: interpolation", interpolation, ["bilinear", "bicubic"])
        self.paths = [os.path.abspath(getattr(record, "path", record)) for record in records]
        if not self.paths:
            raise ValueError("ImageCache: no record; expected at least one image")
        self.image_size = tuple(image_size)
        self.interpolation = interpolation
        height, width = image_size
        listed = hashlib.sha256(os.fsencode("\n".join(self.paths))).hexdigest()[:16]
        self._name = f"{height}x{width}-{interpolation}-{listed}"
        self.path = Path(directory) / f"{self._name}-{_digest(self.paths)}.images"
        if not self.path.is_file():
            self._build(progress)
        shape = (len(self.paths), height, width, 3)
        self.images = np.memmap(self.path, np.uint8, "r", shape=shape)

    def batch(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Copies the images of these indices: uint8 (B, 3, H, W), channels last in memory."""
        images = torch.from_numpy(self.images[np.asarray(indices, np.int64)])
        images = rearrange(images, "b h w c -> b c h w")
        if torch.device(device).type == "cuda":
            # From pinned memory the copy to the GPU runs while the host goes on.
            images = images.pin_memory()
        return images.to(device, non_blocking=True)

    def _build(self, progress: bool) -> None:
        """Writes the file, or waits for another process that writes it."""
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / f"{self._name}.lock"):
                if self.path.is_file():
                    return  # another process made it while this one waited
                # Of these images before they changed, or of a process that was killed.
                for outdated in folder.glob(f"*{self._name}*.images"):
                    outdated.unlink(missing_ok=True)
                with atomic_write(self.path) as temporary:
                    self._write(temporary, progress)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}. FUSIONREID_CACHE names another folder for decoded images",
                str(self.path),
            ) from error

    def _write(self, file: Path, progress: bool) -> None:
        """Writes the images in order.

        Written, not mapped: in a memory map a full disk would end the process.
        """
        work = partial(decode, image_size=self.image_size, interpolation=self.interpolation)
        bar = tqdm(
            desc=f"Decoding to {self.path.name}",
            total=len(self.paths),
            unit="image",
            disable=not bars(progress),
        )
        with bar, open(file, "wb") as target:
            # By blocks, as decoded images wait in memory where the disk is slower than the cores.
            for start in range(0, len(self.paths), BLOCK):
                for image in on_all_cores(work, self.paths[start : start + BLOCK]):
                    target.write(image)
                    bar.update()


def _digest(paths: list[str]) -> str:
    """A digest of the images' paths, sizes and dates, and of how they are read."""
    digest = hashlib.sha256(DECODER.encode())
    for path in paths:
        status = os.stat(path)
        digest.update(os.fsencode(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n"))
    return digest.hexdigest()[:16]


def prefetch(
    cache: ImageCache, batches: Iterable[Sequence[int]], device: torch.device | str = "cpu"
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yields (indices, `cache.batch(indices, device)`) while a thread reads the next batch."""
    with ThreadPoolExecutor(1) as pool:
        read = ((indices, pool.submit(cache.batch, indices, device)) for indices in batches)
        # `pairwise` asks for the next batch before this one is given away; the last has no next.
        for (indices, pixels), _ in pairwise(chain(read, [None])):
            yield indices, pixels.result()
