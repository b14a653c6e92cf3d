"""Processes, cores and progress bars."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


def bars(progress: bool) -> bool:
    """Whether progress bars are wanted and not switched off by TQDM_DISABLE, which tqdm overlooks where it is told."""
    return progress and os.environ.get("TQDM_DISABLE", "0") in ("", "0")


def cores() -> int:
    """The cores that this process may use, at most $FUSIONREID_CORES."""
    found = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    asked = os.environ.get("FUSIONREID_CORES") or str(found)
    if not asked.isdecimal() or asked == "0":
        raise ValueError(f"FUSIONREID_CORES: expected a number of cores, found {asked!r}")
    return min(found, int(asked))


@contextmanager
def pool(processes: int, threads: int = 1) -> Iterator[ProcessPoolExecutor]:
    """A pool of new processes, each with its own number of threads.

    Two processes that each use every core wait for each other's threads. On an error or Ctrl-C the jobs are stopped.
    """
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, context, initializer=_start, initargs=(threads,))
    try:
        yield executor
    except BaseException:
        started = list(
            (executor._processes or {}).values()
        )  # from Python 3.14: executor.terminate_workers()
        executor.shutdown(wait=False, cancel_futures=True)
        for process in started:
            process.terminate()
        raise
    executor.shutdown()


def _start(threads: int) -> None:
    """In each new process: Ctrl-C is the parent's to handle, and the process ends with its parent."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that temporary files are removed
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
