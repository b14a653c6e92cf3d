"""Jobs side by side: on one machine, one process a core or GPU, each with threads of its own; or on a cluster.

Two processes that each want every core are slower than one after the other (their threads wait for each other), so a
worker gets its threads by the environment before its libraries start. A job that fails, or a process that is killed,
costs its own job and no other.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


Report = Callable[[int, str | None], None]


def bars(progress: bool) -> bool:
    """Whether progress bars are wanted and not switched off by TQDM_DISABLE, which tqdm overlooks where it is told."""
    return progress and os.environ.get("TQDM_DISABLE", "0") in ("", "0")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    function: Callable, jobs: Sequence, *, processes: int | None, devices: Sequence[str] | None, report: Report
) -> None:
    """`spread` over the devices, or `in_turn` where one process is asked for or one job is left.

    Args:
        processes: at once; None is one a core, or one a GPU. On CPUs each has one thread, on GPUs a share of the cores.
        devices: by default every GPU, or the CPU; the processes take turns on them.
    """
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    devices = list(devices or gpus or ["cpu"])
    on_cpu = all(device == "cpu" for device in devices)
    count = min(processes or (cores() if on_cpu else len(devices)), len(jobs))
    threads = 1 if on_cpu else max(1, cores() // count)
    if count == 1:
        in_turn(function, jobs, devices[0], threads=threads, report=report)
    else:
        slots = [devices[index % len(devices)] for index in range(count)]
        spread(function, jobs, slots, threads=threads, report=report)


def spread(function: Callable, jobs: Sequence, slots: Sequence, *, threads: int = 1, report: Report) -> None:
    """Calls `function(job, slot)` for each job, at most one at a time on each slot, in spawned processes.

    Args:
        function: of a module that a new process can import; what it returns is dropped.
        jobs: handed out in this order.
        slots: one process each; what tells them apart (a device's name).
        threads: of each process.
        report: called in this process with a job's index and its error as soon as it ends: a traceback, how its process
            ended, or None when all is well.

    Raises:
        KeyboardInterrupt: after the processes have been stopped.
    """
    waiting = deque(enumerate(jobs))
    busy: dict[connection.Connection, tuple] = {}  # to a worker -> its process, slot and job
    processes: list[multiprocessing.process.BaseProcess] = []  # all, the ones between two jobs too

    def hand_out(pipe, process, slot):
        if not waiting:
            pipe.close()  # the worker sees the end of its pipe and leaves
            process.join()
            return
        index, job = waiting.popleft()
        busy[pipe] = process, slot, index
        try:
            pipe.send((job, slot))
        except (BrokenPipeError, ConnectionResetError):
            pass  # it died between two jobs: reading its pipe says so

    try:
        for slot in list(slots)[: len(waiting)]:
            hand_out(*_start(function, threads, processes), slot)
        while busy:
            for pipe in connection.wait(list(busy)):
                process, slot, index = busy[pipe]
                try:
                    error, alive = pipe.recv(), True
                except (EOFError, ConnectionResetError):
                    process.join()
                    error, alive = _ending(process.exitcode), False
                del busy[pipe]
                report(index, error)
                if alive:
                    hand_out(pipe, process, slot)
                elif waiting:
                    hand_out(*_start(function, threads, processes), slot)
    finally:
        _stop(processes)


def in_turn(function: Callable, jobs: Sequence, slot, *, threads: int = 1, report: Report) -> None:
    """`spread` over one slot, in this process, which a debugger can follow; to the same numbers."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for index, job in enumerate(jobs):
            error = None
            try:
                function(job, slot)
            except Exception:
                error = traceback.format_exc()
            report(index, error)
    finally:
        torch.set_num_threads(before)


def submit(
    function: Callable, jobs: Sequence, cluster: str | dict, *, folder: Path, limit: int | None, report: Report
) -> None:
    """One job of a cluster each, by submitit; waits for all, and cancels what is pending on Ctrl-C.

    Args:
        cluster: submitit's parameters for Slurm, or the name of one of its executors ("slurm", "local", "debug").
            A job has one thread, or `cpus_per_task`.
        folder: for submitit's logs; all machines see it.
        limit: jobs at once.
    """
    try:
        import submitit
    except ImportError as error:
        raise ImportError('submitit is not installed; a cluster needs it: pip install "fusionreid[cluster]"') from error
    parameters = {"timeout_min": 24 * 60, **(cluster if isinstance(cluster, dict) else {})}
    if limit and cluster != "local":
        parameters["slurm_array_parallelism"] = limit
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster if isinstance(cluster, str) else None)
    executor.update_parameters(**parameters)
    threads = parameters.get("cpus_per_task", 1)
    arguments = [function] * len(jobs), jobs, [threads] * len(jobs)
    waiting = dict(enumerate(executor.map_array(_limited, *arguments)))
    try:
        while waiting:
            for index in [index for index, job in waiting.items() if job.done()]:
                failure = waiting.pop(index).exception()
                report(index, str(failure) if failure else None)
            if waiting:
                time.sleep(1)
    finally:
        for job in waiting.values():
            job.cancel()


def _limited(function, job, threads):
    """A job on a machine of the cluster: as many threads as it was given cores, on the GPU it was given, if any."""
    import torch

    torch.set_num_threads(threads)
    function(job, None)


def _start(function, threads, processes):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, function, threads))
    processes.append(process)
    with _environment(threads):
        process.start()
    theirs.close()
    return ours, process


@contextmanager
def _environment(threads: int):
    """What a process started inside inherits: its number of threads."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _work(pipe, function, threads):
    """The life of a worker: take a job, do it, say how it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave by `finally`: no temporary files stay
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    while True:
        try:
            job, slot = pipe.recv()
        except EOFError:
            return
        try:
            function(job, slot)
            error = None
        except Exception:
            error = traceback.format_exc()
        pipe.send(error)


def _leave_with_parent():
    """A killed parent cannot stop its workers; they notice."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _stop(processes):
    running = [process for process in processes if process.pid and process.is_alive()]
    for process in running:
        process.terminate()
    for process in running:
        process.join(timeout=10)
        if process.is_alive():
            process.kill()
            process.join()


def _ending(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = "; the system may have been out of memory" if -exitcode == signal.SIGKILL else ""
        return f"its process was killed by {name}{hint}"
    return f"its process ended with exit code {exitcode}"
