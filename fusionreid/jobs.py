"""Many runs side by side: one process a core or GPU, or one job a run on a cluster."""

import shutil
import subprocess
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
from .files import is_locked, write_text
from .models import checkpoints
from .paper.experiments import Setting, plan
from .processes import bars, cores, pool
from .training.losses import Objective
from .training.runs import RunConfig, RunFolder, read_result
from .training.train import train


class RunsError(RuntimeError):
    """Some runs failed; `errors` holds the traceback of each, by the run's name."""

    def __init__(self, errors: dict[str, str], total: int):
        self.errors = errors
        tracebacks = "".join(f"\n\n{name}\n{error.rstrip()}" for name, error in errors.items())
        super().__init__(
            f"{len(errors)} of {total} runs failed; the others are done and are kept.{tracebacks}"
        )


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
        devices: of the processes; default: every GPU, or the CPU.
        cluster: by submitit, a job a run: "slurm", "local" (all at once) or {"cluster": "slurm", "gpus_per_node": 1}.

    Returns a row a run: `run`, `fingerprint`, `seed`, `status` ("trained" or "loaded"), `seconds` of training.

    Raises RunsError if some runs failed, where the others are done; KeyboardInterrupt when all are stopped, and each
    continues from its last finished epoch the next time; ValueError for an unknown row or a damaged result.
    """
    runs = plan(names, setting, rows=rows)
    if cluster:
        side_by_side = partial(
            _on_cluster, cluster=cluster, folder=setting.runs_root / "cluster", limit=processes
        )
    else:
        side_by_side = partial(on_this_machine, processes=processes, devices=devices)
    missing = train_missing(runs, setting.runs_root, data_root, side_by_side, progress)
    done = pd.DataFrame([read_result(run.fingerprint, setting.runs_root) for run in runs.values()])
    done.insert(0, "run", list(runs))
    done["status"] = ["trained" if name in missing else "loaded" for name in runs]
    return done[["run", "fingerprint", "seed", "status", "seconds"]]


def states(runs: dict[str, RunConfig], runs_root: Path) -> pd.DataFrame:
    """A row a run: its `state`, its finished `epochs`, and its last `job` on a cluster; trains nothing.

    "done" has a result; "queued" waits in Slurm's queue; "running" is a job there, or held by a process; "failed" has
    begun or was submitted and has ended without a result (the same command continues it); "missing" is all else.
    """
    try:
        queue, rows = _queue(), []
    except OSError as error:  # a machine may have Slurm's commands and no cluster
        warnings.warn(f"{error}; jobs that wait or run there are shown as failed", stacklevel=2)
        queue, rows = {}, []
    for name, run in runs.items():
        folder, job = RunFolder(run, runs_root), runs_root / "cluster" / f"{run.fingerprint}.job"
        job = job.read_text() if job.exists() else ""
        if folder.finished:
            state = "done"
        elif queue.get(job) == "PENDING":
            state = "queued"
        elif job in queue or is_locked(folder.lock):
            state = "running"
        else:
            state = "failed" if job or folder.path.exists() else "missing"
        epoch = (
            checkpoints.read_state(folder.checkpoint)["epoch"] if folder.checkpoint.exists() else 0
        )
        rows.append((name, run.fingerprint, state, f"{epoch}/{run.train.epochs}", job))
    return pd.DataFrame(rows, columns=["run", "fingerprint", "state", "epochs", "job"])


def train_missing(
    runs: dict[str, RunConfig],
    runs_root: Path,
    data_root: str | Path | None = None,
    side_by_side: Callable | None = None,
    progress: bool = True,
    objective: Objective | None = None,
) -> dict[str, RunConfig]:
    """Trains those of the named runs that have no result, by default one a core.

    `objective` is as of `train`. Returns the runs that were missing, or raises RunsError.
    """
    missing = {
        name: run for name, run in runs.items() if read_result(run.fingerprint, runs_root) is None
    }
    errors = {}
    if missing:
        for data in {run.data for run in missing.values()}:
            open_data(
                data, data_root or paths.DATA
            )  # rendered and checked once, before several processes want it
        work = partial(_train, data_root=data_root, runs_root=runs_root, objective=objective)
        ended = (side_by_side or on_this_machine)(work, missing)
        bar = tqdm(
            total=len(runs),
            initial=len(runs) - len(missing),
            desc="variants",
            disable=not bars(progress),
        )
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


def _train(
    run: RunConfig,
    device: str | None,
    *,
    data_root: Path | None,
    runs_root: Path,
    objective: Objective | None,
) -> None:
    with warnings.catch_warnings():
        # The parent process has already said this of the data.
        warnings.filterwarnings("ignore", message=".*(Is the set complete| too: )")
        train(
            run,
            objective=objective,
            data_root=data_root,
            runs_root=runs_root,
            device=device,
            progress=False,
        )


def on_this_machine(
    work: Callable,
    runs: dict[str, RunConfig],
    processes: int | None = None,
    devices: Sequence[str] | None = None,
) -> Iterator[tuple[str, str]]:
    """Yields each run's name and error ("": none) as it ends; a process that is killed loses its own run only."""
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    devices = list(devices or gpus or ["cpu"])
    on_cpu = set(devices) == {"cpu"}
    count = min(processes or (cores() if on_cpu else len(devices)), len(runs))
    threads = 1 if on_cpu else max(1, cores() // count)
    waiting, running = deque(runs), {}
    with ExitStack() as stack:
        free = [
            (stack.enter_context(pool(1, threads)), devices[index % len(devices)])
            for index in range(count)
        ]
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
                    error = (
                        "".join(traceback.format_exception(future.exception()))
                        if future.exception()
                        else ""
                    )
                free.append((executor, device))
                yield name, error


def _on_cluster(
    work: Callable, runs: dict[str, RunConfig], cluster: str | dict, folder: Path, limit: int | None
) -> Iterator[tuple[str, str]]:
    """As `on_this_machine`, each run a job of submitit; on an error or Ctrl-C, it cancels those that have not ended."""
    try:
        import submitit
    except ImportError as error:
        raise ImportError(
            'submitit is not installed; a cluster needs it: pip install "fusionreid[cluster]"'
        ) from error
    parameters = {"timeout_min": 24 * 60} | (
        {"cluster": cluster} if isinstance(cluster, str) else cluster
    )
    executor = submitit.AutoExecutor(folder=folder, cluster=parameters.pop("cluster", None))
    slurm = executor.cluster == "slurm"
    if limit and slurm:
        parameters["slurm_array_parallelism"] = limit
    executor.update_parameters(**parameters)
    work = _Resumable(work)
    queue, files = (
        _queue() if slurm else {},
        {name: folder / f"{run.fingerprint}.job" for name, run in runs.items()},
    )
    known = {
        name: file.read_text() for name, file in files.items() if file.exists()
    }  # waited for, if in the queue
    jobs = {name: submitit.SlurmJob(folder, job) for name, job in known.items() if job in queue}
    new = [name for name in runs if name not in jobs]
    submitted = (
        executor.map_array(work, [runs[name] for name in new], [None] * len(new)) if new else []
    )
    for name, job in zip(new, submitted, strict=True):
        write_text(files[name], job.job_id)
        jobs[name] = job
    try:
        while jobs:
            time.sleep(10 if slurm else 1)
            try:
                queue = _queue() if slurm else {}
            except OSError:  # Slurm does not answer just now
                continue
            for name, job in list(jobs.items()):
                wrote = job.paths.result_pickle.exists()
                if wrote or (job.job_id not in queue if slurm else job.done()):
                    del jobs[name]
                    lost = f"job {job.job_id} ended without a result: cancelled or killed? See {job.paths.stderr}"
                    yield name, lost if slurm and not wrote else str(job.exception() or "")
    finally:
        for job in jobs.values():
            job.cancel()


class _Resumable(partial):
    """Work whose job, pre-empted or out of time, goes back to the queue: a run goes on from its last finished epoch."""

    def checkpoint(self, *arguments):
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


def _queue() -> dict[str, str]:
    """The states of my jobs on Slurm, {"12_3": "PENDING"}. (Submitit asks sacct, which not every cluster has.)"""
    if not shutil.which("squeue"):
        return {}
    asked = subprocess.run(
        "squeue --me --array --noheader --format=%i|%T".split(), capture_output=True, text=True
    )
    if asked.returncode:
        raise OSError(f"squeue: {asked.stderr.strip()}")
    return dict(line.split("|") for line in asked.stdout.splitlines())
