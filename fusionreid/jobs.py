"""Many runs side by side: one process a core or GPU, or one job a run on a cluster."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from . import paths
from .data.datasets import open_data
from .evaluation.evaluate import evaluate
from .paper.experiments import Setting, plan
from .processes import bars, cores, own_device, pool
from .training.runs import RunConfig, read_result
from .training.train import train


class RunsError(RuntimeError):
    """Some runs failed while the others were done.

    Attributes:
        errors: {run: traceback}.
    """

    def __init__(self, errors: dict[str, str], total: int):
        self.errors = errors
        text = "\n\n".join(f"{name}\n{error.rstrip()}" for name, error in errors.items())
        super().__init__(f"{len(errors)} of {total} runs failed; the others are done and are kept.\n\n{text}")


def run_all(
    names: str | Sequence[str],
    setting: Setting,
    *,
    rows: Sequence[str] | None = None,
    processes: int | None = None,
    devices: Sequence[str] | None = None,
    data_root: str | Path | None = None,
    cluster: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Trains the runs of some experiments that are missing, side by side; loads those that are there.

    Args:
        names: "table1" to "table6", "figure5", "figure6", or several of them.
        rows: the names of variants; default: all.
        processes: at once; default: one a core, or one a GPU. On a cluster: jobs at once.
        devices: default: every GPU, or the CPU; the runs take turns on them.
        cluster: an executor of submitit, "slurm" or "local": one job a run.

    Returns:
        A row a run: `run`, `fingerprint`, `seed`, `status` ("trained" or "loaded"), `seconds`.

    Raises:
        RunsError: some runs failed; the others are done.
        ValueError: an unknown experiment or row, or a damaged result.
    """
    runs = plan(names, setting, rows=rows)
    missing = {name: run for name, run in runs.items() if read_result(run.fingerprint, setting.runs_root) is None}
    if missing:
        for data in dict.fromkeys(run.data for run in missing.values()):
            open_data(data, data_root or paths.DATA)  # rendered or checked once, before several processes want it
        work = partial(_train, data_root=data_root, runs_root=setting.runs_root)
        if cluster:
            finished = _on_cluster(work, missing, cluster, setting.runs_root / "cluster", processes)
        else:
            finished = _on_this_machine(work, missing, processes, devices)
        errors = {}
        hidden = not bars(progress)
        with tqdm(total=len(runs), initial=len(runs) - len(missing), desc="variants", disable=hidden) as bar:
            for name, error in finished:
                if error:
                    errors[name] = error
                    tqdm.write(f"{name} failed: {error.strip().splitlines()[-1]}")
                bar.set_postfix_str(name[:60], refresh=False)
                bar.update()
        if errors:
            raise RunsError(errors, len(runs))
    done = []
    for name, run in runs.items():
        status, result = "trained" if name in missing else "loaded", read_result(run.fingerprint, setting.runs_root)
        done.append((name, run.fingerprint, run.seed, status, result["seconds"]))
    return pd.DataFrame(done, columns=["run", "fingerprint", "seed", "status", "seconds"])


def _train(run: RunConfig, device: str | None, *, data_root, runs_root) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Is the set complete")  # said once, by `run_all`
        train(run, evaluate, data_root=data_root, runs_root=runs_root, device=device, progress=False)


def _on_this_machine(
    work: Callable, runs: dict[str, RunConfig], processes: int | None, devices: Sequence[str] | None
) -> Iterator[tuple[str, str | None]]:
    """Yields (name, error or None) as runs end. One process is this one, which a debugger can follow."""
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    devices = list(devices or gpus or ["cpu"])
    on_cpu = devices == ["cpu"]
    count = min(processes or (cores() if on_cpu else len(devices)), len(runs))
    threads = 1 if on_cpu else max(1, cores() // count)
    if count == 1:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            for name, run in runs.items():
                yield name, _error_of(work, run, devices[0])
        finally:
            torch.set_num_threads(before)
        return
    left = dict(runs)
    while left:
        with pool(count, threads, devices) as executor:
            futures = {executor.submit(_error_of, work, run): name for name, run in left.items()}
            for future in as_completed(futures):
                if not isinstance(future.exception(), BrokenProcessPool):
                    name = futures[future]
                    del left[name]
                    yield name, future.result()
        for name in list(left)[:count]:  # a process was killed; the pool does not say which of the runs in work it had
            del left[name]
            yield name, "a process was killed while this run was in work, often for want of memory; run it again"


def _error_of(work: Callable, run: RunConfig, device: str | None = None) -> str | None:
    try:
        work(run, device or own_device())
    except Exception:
        return traceback.format_exc()
    return None


def _on_cluster(
    work: Callable, runs: dict[str, RunConfig], cluster: str, folder: Path, limit: int | None
) -> Iterator[tuple[str, str | None]]:
    """One job a run, by submitit; cancels what is pending when it is interrupted."""
    try:
        import submitit
    except ImportError as error:
        raise ImportError('submitit is not installed; a cluster needs it: pip install "fusionreid[cluster]"') from error
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    executor.update_parameters(timeout_min=24 * 60)
    if limit and cluster == "slurm":
        executor.update_parameters(slurm_array_parallelism=limit)
    waiting = dict(zip(runs, executor.map_array(partial(_error_of, work), list(runs.values())), strict=True))
    try:
        while waiting:
            for name in [name for name, job in waiting.items() if job.done()]:
                job = waiting.pop(name)
                yield name, str(job.exception() or "") or job.result()
            time.sleep(1 if waiting else 0)
    finally:
        for job in waiting.values():
            job.cancel()
