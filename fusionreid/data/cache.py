"""Images decoded and resized once, kept in one memory-mapped file, and read from it by the batch."""

import hashlib
import os
import shutil
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from ..config import one_of
from ..files import atomic_write, locked, mistaken
from ..processes import bars, cores

DECODER = "PIL, RGB, 2"  # part of a cache's digest: change it with `decode`


def decode(
    path: str | Path, image_size: tuple[int, int], interpolation: str = "bilinear"
) -> np.ndarray:
    """Reads one image as RGB, turned upright by its EXIF orientation and resized (antialiased): uint8 (H, W, 3).

    Raises FileNotFoundError, or ValueError naming the file, if it cannot be read or decoded, or has 32 bits a channel.
    """
    try:
        with Image.open(path) as image:
            return fit(image, image_size, interpolation)
    except FileNotFoundError:
        raise
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:  # what PIL's decoders raise
        why = os.path.isfile(path) and mistaken(path) or error
        raise ValueError(
            f"{path}: expected an image, found what cannot be decoded ({why})"
        ) from error


def fit(
    image: Image.Image, image_size: tuple[int, int], interpolation: str = "bilinear"
) -> np.ndarray:
    """What `decode` does to an opened image. A ValueError for 32 bits a channel; PIL's errors for a damaged file."""
    height, width = image_size
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # gray of 16 bits, which PIL would clip at 255
        image = Image.fromarray(((np.asarray(image, np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"32 bits a channel, mode {image.mode}; save it with 8 or 16 bits")
    image = image.convert("RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling[interpolation.upper()])
    return np.asarray(image)


def load_images(paths: Sequence[str | Path], image_size: tuple[int, int]) -> Tensor:
    """Reads images without a cache, resized bilinearly: uint8 (N, 3, H, W). Raises as `decode` does."""
    with ThreadPoolExecutor(cores()) as pool:
        images = list(pool.map(lambda path: decode(path, image_size), paths))
    return torch.from_numpy(np.array(images, np.uint8).reshape(-1, *image_size, 3)).permute(
        0, 3, 1, 2
    )


class ImageCache:
    """The decoded and resized images of a list of records, which are paths, or have a `path`.

    The first use decodes the images on all cores into one file; later uses map it into memory. The file ends with a
    checksum of each image and a digest of these and of the images' paths, sizes in bytes and times of change; with
    another digest it is made again, by one process. An image that is damaged when first read is decoded again, with a
    warning. The interpolation is "bilinear", or "bicubic" for training images, both antialiased.

    Raises FileNotFoundError or ValueError, naming the image that is missing or cannot be decoded; OSError, naming the
    cache's file, if the disk is full or read-only.
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
        self.image_size, self.interpolation = tuple(image_size), interpolation
        shape = (len(self.paths), *self.image_size, 3)
        key = hashlib.sha256("\n".join(self.paths).encode()).hexdigest()[:16]
        self.path = (
            Path(directory) / f"{image_size[0]}x{image_size[1]}-{interpolation}-{key}.images"
        )
        digest = hashlib.sha256(f"{DECODER} {interpolation} {shape}".encode())
        for path, status in zip(self.paths, map(os.stat, self.paths), strict=True):
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        size = int(np.prod(shape))
        known = _checksums(self.path, size, len(self.paths), digest.copy())
        self.checksums = self._build(size, digest, progress) if known is None else known
        self.images = np.memmap(self.path, np.uint8, "r", shape=shape)
        self.checked = np.zeros(len(self.paths), bool)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """The images of these indices, a copy: uint8 (B, H, W, 3)."""
        indices = np.asarray(indices, np.int64)
        for index in np.unique(indices[~self.checked[indices]]):
            if zlib.crc32(self.images[index]) != self.checksums[index]:
                warnings.warn(
                    f"{self.path}: damaged at {self.paths[index]}, which is decoded again",
                    stacklevel=2,
                )
                self._decode_into(self.path, index)
            self.checked[index] = True
        return self.images[indices]

    def batch(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """The images of these indices, uint8 (B, 3, H, W), channels last in memory."""
        images = torch.from_numpy(self.read(indices)).permute(0, 3, 1, 2)
        if (
            torch.device(device).type == "cuda"
        ):  # from pinned memory it is copied while the host goes on
            images = images.pin_memory()
        return images.to(device, non_blocking=True)

    def _build(self, size: int, digest, progress: bool) -> np.ndarray:
        """Writes the file: the decoded images (`size` bytes), their checksums, which it returns, then the digest."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path.with_suffix(".lock")):
                if (
                    found := _checksums(self.path, size, len(self.paths), digest.copy())
                ) is not None:
                    return found  # another process made it while this one waited
                for leftover in self.path.parent.glob(
                    f".{self.path.name}.*"
                ):  # of a process that was killed
                    leftover.unlink(missing_ok=True)
                if (free := shutil.disk_usage(self.path.parent).free) < size:
                    raise OSError(f"{size / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free")
                with atomic_write(self.path) as temporary:
                    checksums = self._decode_all_into(temporary, progress)
                    digest.update(checksums)
                    with open(temporary, "ab") as file:
                        file.write(checksums.tobytes() + digest.digest())
                return checksums
        except OSError as error:
            why, path = (error.__cause__ or error).strerror or error, str(self.path)
            text = f"the decoded images ({size / 1e9:.2f} GB) cannot be written: {why}. Free the disk, or name a folder"
            raise OSError(
                error.errno or 0, f"{text} that can be written in FUSIONREID_CACHE", path
            ) from error

    def _decode_all_into(self, file: Path, progress: bool) -> np.ndarray:
        count, bar = len(self.paths), {"desc": f"Decoding to {self.path.name}", "unit": "image"}
        with ThreadPoolExecutor(
            cores()
        ) as pool:  # threads: PIL decodes and resizes outside Python's lock
            checksums = pool.map(partial(self._decode_into, file), range(count))
            return np.array(
                list(tqdm(checksums, total=count, disable=not bars(progress), **bar)), "<u4"
            )

    def _decode_into(self, file: Path, index: int) -> int:
        """Writes an image to its place in the file, and returns its checksum."""
        image = decode(self.paths[index], self.image_size, self.interpolation)
        # Written, not mapped: a full disk is an error here, and the end of the process in a memory map.
        with open(file, "r+b") as opened:
            opened.seek(index * image.nbytes)
            opened.write(image)
        return zlib.crc32(image)


def prefetch(
    cache: ImageCache, batches: Iterable[Sequence[int]], device: torch.device | str = "cpu"
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yields (indices, `cache.batch(indices, device)`) while a thread reads the next batch."""
    with ThreadPoolExecutor(1) as pool:
        reads = (pool.submit(lambda i: (i, cache.batch(i, device)), indices) for indices in batches)
        for current, _ in pairwise(
            chain(reads, [None])
        ):  # the next one is submitted before this one is awaited
            yield current.result()


def _checksums(path: Path, size: int, count: int, digest) -> np.ndarray | None:
    """The images' checksums (N,) from the end of a file; None if it is not whole, or of other images."""
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        file.seek(size)
        end = file.read(4 * count + digest.digest_size + 1)
    digest.update(end[: 4 * count])
    return np.frombuffer(end, "<u4", count) if end[4 * count :] == digest.digest() else None
