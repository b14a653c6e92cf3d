"""Processes, cores and progress bars."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


def bars(progress: bool) -> bool:
    """Whether progress bars are wanted and not switched off by TQDM_DISABLE, which tqdm overlooks where it is told."""
    return progress and os.environ.get("TQDM_DISABLE", "0") in ("", "0")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def pool(processes: int, threads: int = 1, devices: Sequence[str] = ("cpu",)) -> Iterator[ProcessPoolExecutor]:
    """A pool of new processes, each with its own number of threads and its own device; see `own_device`.

    Two processes that each use every core wait for each other's threads, and are slower than one after the other.
    On an error or Ctrl-C, jobs that have not started are dropped.
    """
    context = multiprocessing.get_context("spawn")
    turns = context.SimpleQueue()
    for index in range(processes):
        turns.put(devices[index % len(devices)])
    executor = ProcessPoolExecutor(processes, context, initializer=_start, initargs=(threads, turns))
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()


_device = None


def own_device() -> str | None:
    """In a process of a pool: the device that this process computes on. Elsewhere None."""
    return _device


def _start(threads: int, turns) -> None:
    """In each new process: Ctrl-C is the parent's to handle, and the process ends with its parent."""
    import torch

    global _device
    _device = turns.get()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _leave_with_parent() -> None:
    """A parent that was killed cannot stop its processes; they end by themselves."""
    multiprocessing.parent_process().join()
    os._exit(1)
