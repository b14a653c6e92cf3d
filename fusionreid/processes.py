"""Processes, cores, progress bars and speed."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


def bars(progress: bool) -> bool:
    """Whether to show progress bars: where `progress` is true, unless $TQDM_DISABLE is set.

    (tqdm does not look at the variable itself where it is given `disable`.)
    """
    return progress and os.environ.get("TQDM_DISABLE", "0") in ("", "0")


def speed(images: int, seconds: float) -> str:
    """How fast images went through a model."""
    return f"{images:,} images in {seconds:,.1f} s, {images / max(seconds, 1e-9):,.0f} images/s"


def cores() -> int:
    """The cores that this process may use, at most $FUSIONREID_CORES."""
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    limit = os.environ.get("FUSIONREID_CORES") or str(available)
    if not limit.isdecimal() or limit == "0":
        raise ValueError(f"FUSIONREID_CORES: expected a number of cores, found {limit!r}")
    return min(available, int(limit))


@contextmanager
def pool(processes: int, threads: int = 1) -> Iterator[ProcessPoolExecutor]:
    """A pool of new processes, each with its own number of threads.

    (Two processes that each use every core wait for each other's threads.) On an error or Ctrl-C
    the processes are stopped.
    """
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, context, initializer=_start, initargs=(threads,))
    try:
        yield executor
    except BaseException:
        # From Python 3.14 on: executor.terminate_workers()
        workers = list((executor._processes or {}).values())
        executor.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        raise
    executor.shutdown()


def _start(threads: int) -> None:
    """In each new process: the parent handles Ctrl-C, and the process ends with its parent."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that temporary files are removed
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
