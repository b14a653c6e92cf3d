"""Images decoded and resized once, kept as one memory-mapped array, and read from it by the batch."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..files import atomic_write, locked
from ..processes import bars, cores
from .augment import empty

CHUNK = 32  # images decoded and written at a time by one thread
DECODER = "PIL, RGB, bilinear, 1"  # part of a cache's fingerprint: change it with `decode`


def decode(path: str | Path, image_size: tuple[int, int]) -> np.ndarray:
    """Reads one image as RGB, resized (bilinear, antialiased) to (height, width): uint8 (H, W, 3).

    Raises:
        FileNotFoundError, PermissionError, ValueError: naming the file, when it is missing, may not be read, or is
            empty, cut short or no image.
    """
    height, width = image_size
    try:
        with Image.open(path) as image:
            image = image.convert("RGB")
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(image)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such image") from error
    except PermissionError as error:
        raise PermissionError(error.errno, "no permission to read this image", str(path)) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what PIL's decoders raise
        found = f"{os.path.getsize(path):,} bytes" if os.path.isfile(path) else "something else than a file"
        raise ValueError(f"{path}: expected an image, found {found} that cannot be decoded ({error})") from error


def load_images(paths: Sequence[str | Path], image_size: tuple[int, int]) -> Tensor:
    """Reads images, without a cache: uint8 (N, 3, H, W). Raises as `decode` does."""
    images = np.empty((len(paths), *image_size, 3), np.uint8)

    def load(index: int) -> None:
        images[index] = decode(paths[index], image_size)

    with ThreadPoolExecutor(cores()) as pool:
        for _ in pool.map(load, range(len(paths))):
            pass
    return torch.from_numpy(images).permute(0, 3, 1, 2)


class ImageCache:
    """The decoded, resized images of a list of records.

    The first use decodes them on all cores into one file; later uses map it. Its name is made of the images' paths and
    the image size; its last bytes are a digest of the images' paths, sizes in bytes and times of change. A file
    whose length or digest is not the expected one is stale or torn, and made again. Of several processes
    that want the same cache one makes it and the others wait; the file only appears when it is complete.

    Args:
        records: anything with a `path`, or paths.
        image_size: (height, width) in pixels.
        directory: where the file lies.
        progress: shows a bar while decoding.

    Attributes:
        path: the file.
        images: read-only memory map, uint8 (N, H, W, 3).

    Raises:
        FileNotFoundError, PermissionError, ValueError: naming the image that is missing, may not be read or cannot
            be decoded.
        OSError: naming the cache's file, on a full or read-only disk.
    """

    def __init__(self, records: Sequence, image_size: tuple[int, int], directory: str | Path, *, progress: bool = True):
        paths = [os.path.abspath(getattr(record, "path", record)) for record in records]
        if not paths:
            raise ValueError("ImageCache: no record; expected at least one image")
        self.image_size = tuple(image_size)
        height, width = self.image_size
        self._shape = (len(paths), height, width, 3)
        key = hashlib.sha256("\n".join(paths).encode()).hexdigest()[:16]
        self.path = Path(directory) / f"{height}x{width}-{key}.images"
        digest = _fingerprint(paths, self.image_size)
        if not self._is_valid(digest):
            self._build(paths, digest, progress)
        self.images = np.memmap(self.path, np.uint8, "r", shape=self._shape)

    def __len__(self) -> int:
        return self._shape[0]

    def batch(self, indices: Sequence[int], device: torch.device | str = "cpu", *, out: Tensor | None = None) -> Tensor:
        """The images of these indices, uint8 (B, 3, H, W), channels last in memory.

        `out` is such a tensor on the CPU to read into, which spares a large batch the cost of fresh memory; without
        it, what goes to a GPU is read into pinned memory and copied while the host goes on.
        """
        device = torch.device(device)
        indices = np.asarray(indices, np.int64)
        if indices.size and not (0 <= indices.min() and indices.max() < len(self)):
            raise IndexError(f"ImageCache.batch: indices {indices.min()} to {indices.max()} of {len(self)} images")
        shape = (len(indices), *self._shape[1:])
        if out is not None:
            images = out.permute(0, 2, 3, 1)
        elif device.type == "cuda":
            images = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        else:
            images = empty(shape, torch.uint8)
        if images.shape != shape or images.dtype != torch.uint8 or not images.is_contiguous():
            raise ValueError(
                f"ImageCache.batch: out is {tuple(out.shape)}; expected uint8 "
                f"{(shape[0], shape[3], *shape[1:3])}, channels last in memory"
            )
        np.take(self.images, indices, axis=0, out=images.numpy(), mode="clip")  # "raise" would copy once more
        return images.to(device, non_blocking=True).permute(0, 3, 1, 2)

    def _is_valid(self, digest: bytes) -> bool:
        size = int(np.prod(self._shape))
        try:
            with open(self.path, "rb") as file:
                if os.fstat(file.fileno()).st_size != size + len(digest):
                    return False
                file.seek(size)
                return file.read() == digest
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _build(self, paths: list[str], digest: bytes, progress: bool) -> None:
        size = int(np.prod(self._shape))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path.with_suffix(".lock")):
                if self._is_valid(digest):  # another process made it while this one waited
                    return
                for leftover in self.path.parent.glob(f".{self.path.name}.*"):  # of a process that was killed
                    leftover.unlink(missing_ok=True)
                free = shutil.disk_usage(self.path.parent).free
                if free < size:
                    raise OSError(f"{size / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free")
                with atomic_write(self.path) as temporary, open(temporary, "r+b") as file:
                    self._decode_into(file.fileno(), paths, progress)
                    os.pwrite(file.fileno(), digest, size)
        except FileNotFoundError:
            raise
        except OSError as error:
            if getattr(error.__cause__, "filename", None) in paths:  # an image that may not be read
                raise error.__cause__ from None
            raise OSError(
                error.errno or 0,
                f"the cache of decoded images ({size / 1e9:.2f} GB) cannot be written: {error.strerror or error}. Free "
                "the disk, or name a folder that can be written in FUSIONREID_CACHE",
                str(self.path),
            ) from error

    def _decode_into(self, file: int, paths: list[str], progress: bool) -> None:
        image_bytes = int(np.prod(self._shape[1:]))

        def work(start: int) -> int:
            chunk = np.stack([decode(path, self.image_size) for path in paths[start : start + CHUNK]])
            _write(file, memoryview(chunk).cast("B"), start * image_bytes)
            return len(chunk)

        # Threads: PIL decodes and resizes outside Python's lock.
        pool = ThreadPoolExecutor(cores())
        try:
            with tqdm(
                total=len(paths),
                desc=f"Decoding to {self.path.name}",
                unit="image",
                disable=None if bars(progress) else True,
            ) as bar:
                for done in pool.map(work, range(0, len(paths), CHUNK)):
                    bar.update(done)
        finally:
            pool.shutdown(cancel_futures=True)


def prefetch(
    cache: ImageCache, batches: Iterable[Sequence[int]], device: torch.device | str = "cpu"
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yields (indices, `cache.batch(indices, device)`) while a thread reads the next batch."""
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for indices in batches:
            following = (indices, pool.submit(cache.batch, indices, device))
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting is not None:
            yield waiting[0], waiting[1].result()


def _fingerprint(paths: list[str], image_size: tuple[int, int]) -> bytes:
    """32 bytes that change with any image's path, size in bytes or time of change, and with the image size."""
    digest = hashlib.sha256(f"{DECODER} {image_size}".encode())
    for path in paths:
        try:
            status = os.stat(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{path}: no such image") from error
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.digest()


def _write(file: int, data: memoryview, offset: int) -> None:
    """All of `data`: a full disk is an OSError here, where writing to a memory map would end the process."""
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
