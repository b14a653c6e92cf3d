"""Many runs side by side: one process a core or GPU, or one job a run on a cluster."""

import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from . import paths
from .data.datasets import open_data
from .evaluation.evaluate import evaluate
from .paper.experiments import Setting, plan
from .processes import bars, cores, pool
from .training.runs import RunConfig, read_result
from .training.train import train


class RunsError(RuntimeError):
    """Some runs failed; `errors` holds the traceback of each, by the run's name."""

    def __init__(self, errors: dict[str, str], total: int):
        self.errors = errors
        tracebacks = "".join(f"\n\n{name}\n{error.rstrip()}" for name, error in errors.items())
        super().__init__(f"{len(errors)} of {total} runs failed; the others are done and are kept.{tracebacks}")


def run_all(
    names: str | Sequence[str],
    setting: Setting,
    *,
    rows: Sequence[str] | None = None,
    processes: int | None = None,
    devices: Sequence[str] | None = None,
    data_root: str | Path | None = None,
    cluster: str | dict | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Trains the runs of some experiments that are missing, side by side; loads those that are there.

    Args:
        rows: the names of variants; default: all.
        processes: at once; default: one a core, of one thread, or one a GPU. On Slurm: jobs at once.
        devices: default: every GPU, or the CPU; the processes are spread over them.
        cluster: one job a run, by submitit: "slurm" or "local", or {"slurm_partition": "gpu", "gpus_per_node": 1}.

    Returns a row a run: `run`, `fingerprint`, `seed`, `status` ("trained" or "loaded"), `seconds` of training.

    Raises RunsError if some runs failed, where the others are done; KeyboardInterrupt when all are stopped, and each
    continues from its last finished epoch the next time; ValueError for an unknown row or a damaged result.
    """
    runs = plan(names, setting, rows=rows)
    if cluster:
        side_by_side = partial(_on_cluster, cluster=cluster, folder=setting.runs_root / "cluster", limit=processes)
    else:
        side_by_side = partial(on_this_machine, processes=processes, devices=devices)
    missing = train_missing(runs, setting.runs_root, data_root, side_by_side, progress)
    done = pd.DataFrame([read_result(run.fingerprint, setting.runs_root) for run in runs.values()])
    done.insert(0, "run", list(runs))
    done["status"] = ["trained" if name in missing else "loaded" for name in runs]
    return done[["run", "fingerprint", "seed", "status", "seconds"]]


def train_missing(
    runs: dict[str, RunConfig],
    runs_root: Path,
    data_root: str | Path | None = None,
    side_by_side: Callable | None = None,
    progress: bool = True,
) -> dict[str, RunConfig]:
    """Trains those of the named runs that have no result, by default one a core; returns them, or raises RunsError."""
    missing = {name: run for name, run in runs.items() if read_result(run.fingerprint, runs_root) is None}
    errors = {}
    if missing:
        for data in {run.data for run in missing.values()}:
            open_data(data, data_root or paths.DATA)  # rendered and checked once, before several processes want it
        work = partial(_train, data_root=data_root, runs_root=runs_root)
        ended = (side_by_side or on_this_machine)(work, missing)
        bar = tqdm(total=len(runs), initial=len(runs) - len(missing), desc="variants", disable=not bars(progress))
        with bar, closing(ended):
            for name, error in ended:
                if error:
                    errors[name] = error
                    tqdm.write(f"{name} failed: {error.strip().splitlines()[-1]}")
                bar.set_postfix_str(name[:60], refresh=False)
                bar.update()
    if errors:
        raise RunsError(errors, len(runs))
    return missing


def _train(run: RunConfig, device: str | None, *, data_root: Path | None, runs_root: Path, threads: int = 0) -> None:
    if threads:
        torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(Is the set complete| too: )")  # `run_all` has said it
        train(run, evaluate, data_root=data_root, runs_root=runs_root, device=device, progress=False)


def on_this_machine(
    work: Callable, runs: dict[str, RunConfig], processes: int | None = None, devices: Sequence[str] | None = None
) -> Iterator[tuple[str, str]]:
    """Yields each run's name and error ("": none) as it ends.

    Each process is a pool of its own with a device of its own: if it is killed, only its run is lost.
    """
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    devices = list(devices or gpus or ["cpu"])
    on_cpu = set(devices) == {"cpu"}
    count = min(processes or (cores() if on_cpu else len(devices)), len(runs))
    threads = 1 if on_cpu else max(1, cores() // count)
    waiting, running = deque(runs), {}
    with ExitStack() as stack:
        free = [(stack.enter_context(pool(1, threads)), devices[index % len(devices)]) for index in range(count)]
        while waiting or running:
            while waiting and free:
                name, (executor, device) = waiting.popleft(), free.pop(0)
                running[executor.submit(work, runs[name], device)] = name, executor, device
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name, executor, device = running.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    executor = stack.enter_context(pool(1, threads))
                    error = "its process was killed, often for want of memory; the same command continues the run"
                else:
                    error = "".join(traceback.format_exception(future.exception())) if future.exception() else ""
                free.append((executor, device))
                yield name, error


def _on_cluster(
    work: Callable, runs: dict[str, RunConfig], cluster: str | dict, folder: Path, limit: int | None
) -> Iterator[tuple[str, str]]:
    """As `on_this_machine`, each run a job of submitit; when it is stopped, it cancels what has not ended."""
    try:
        import submitit
    except ImportError as error:
        raise ImportError('submitit is not installed; a cluster needs it: pip install "fusionreid[cluster]"') from error
    parameters = {"timeout_min": 24 * 60} | (cluster if isinstance(cluster, dict) else {})
    if limit and cluster not in ("local", "debug"):
        parameters["slurm_array_parallelism"] = limit
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster if isinstance(cluster, str) else None)
    executor.update_parameters(**parameters)
    work = partial(work, threads=parameters.get("cpus_per_task", 1))
    jobs = executor.map_array(work, list(runs.values()), [None] * len(runs))
    waiting = dict(zip(runs, jobs, strict=True))
    try:
        while waiting:
            for name in [name for name, job in waiting.items() if job.done()]:
                yield name, str(waiting.pop(name).exception() or "")
            time.sleep(1 if waiting else 0)
    finally:
        for job in waiting.values():
            job.cancel()
