"""Threads that work on blocks of distances, each on its own; and how large a block may be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

BLOCK_BYTES = 256 << 20  # of distances, all threads together
LARGEST_BLOCK_BYTES = 32 << 20  # of distances, one thread
COLUMNS = 1 << 17  # a longer gallery comes in several blocks


def thread_count(threads: int | None, device: torch.device) -> int:
    """Blocks in work at a time: `threads`, by default torch's own number; one on a GPU, which is parallel itself."""
    if threads is not None and threads < 1:
        raise ValueError(f"threads={threads}: expected 1 or more")
    if device.type != "cpu":
        return 1
    return threads or torch.get_num_threads()


def block_rows(rows: int, columns: int, threads: int) -> int:
    """Rows of a block of `columns` distances: all threads get some, and the memory is bounded."""
    held = min(LARGEST_BLOCK_BYTES, BLOCK_BYTES // threads)
    return max(1, min(held // (4 * columns), -(-rows // threads)))


def in_threads(work: Callable, items: Sequence, threads: int) -> Iterator:
    """`work` of each item, in order, by a number of threads."""
    with single_threaded_products():
        if min(threads, len(items)) <= 1:
            yield from map(work, items)
            return
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(work, items)


class Buffer:
    """Memory that is used again for block after block, each thread its own: fresh memory costs as much as a product."""

    def __init__(self):
        self._local = threading.local()

    def take(self, rows: int, columns: int, device: torch.device) -> torch.Tensor:
        """(rows, columns) float32 with anything in it; what was taken before by this thread is overwritten."""
        held = getattr(self._local, "held", None)
        if held is None or held.numel() < rows * columns:
            held = self._local.held = torch.empty(rows * columns, device=device)
        return held[: rows * columns].reshape(rows, columns)


@contextmanager
def single_threaded_products():
    """torch's own threads off, float32 products in float32: the threads here are blocks, which never wait for others.

    Several threads inside one operation wait for each other, and are many times slower on a machine that does
    anything else; and TensorFloat-32, where switched on, keeps ten bits of a feature.
    """
    threads, tf32 = torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = tf32
