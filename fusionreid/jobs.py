"""Many runs side by side: one process a core or GPU, or one job a run on a cluster."""

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

from .data.datasets import open_data
from .files import is_locked
from .models import checkpoints
from .paper.experiments import Setting, plan
from .processes import bars, cores, pool
from .training.losses import PaperObjective
from .training.runs import RunConfig, RunFolder, read_result
from .training.train import train


class RunsError(RuntimeError):
    """Some runs failed; `errors` holds the traceback of each, by the run's name."""

    def __init__(self, errors: dict[str, str], total: int):
        self.errors = errors
        message = f"{len(errors)} of {total} runs failed; the others are done and are kept."
        for name, error in errors.items():
            message += f"\n\n{name}\n{error.rstrip()}"
        super().__init__(message)


def run_all(
    names: str | Sequence[str],
    setting: Setting,
    *,
    rows: Sequence[str] | None = None,
    processes: int | None = None,
    devices: Sequence[str] | None = None,
    cluster: dict | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Trains the missing runs of some experiments, side by side, and loads the finished ones.

    Args:
        rows: the names of variants; default: all.
        processes: at once, or jobs at once on Slurm; default: one a core (of one thread) or GPU.
        devices: of the processes; default: every GPU, or the CPU.
        cluster: what submitit's `AutoExecutor` is told, {"cluster": "slurm", "gpus_per_node": 1};
            each run is a job.

    Returns a row a run: `run`, `fingerprint`, `seed`, `status` ("trained" or "loaded"), `seconds`
    of training.

    Raises RunsError if some runs failed, when the others are done; KeyboardInterrupt when all are
    stopped (the same call goes on from each run's last saved epoch); ValueError for an unknown
    row or a damaged result.
    """
    runs = plan(names, setting, rows=rows)
    if cluster:
        folder = setting.runs_root / "cluster"
        side_by_side = partial(_on_cluster, cluster=cluster, folder=folder, limit=processes)
    else:
        side_by_side = partial(on_this_machine, processes=processes, devices=devices)
    trained = train_missing(runs, setting.runs_root, setting.data_root, side_by_side, progress)
    results = [read_result(run.fingerprint, setting.runs_root) for run in runs.values()]
    table = pd.DataFrame(results)
    table["run"] = list(runs)
    table["status"] = ["trained" if name in trained else "loaded" for name in runs]
    return table[["run", "fingerprint", "seed", "status", "seconds"]]


def states(runs: dict[str, RunConfig], runs_root: Path) -> pd.DataFrame:
    """A row a run: its `state` and its finished `epochs`; trains nothing.

    A run is "done" if it has a result, "running" if a process holds its lock, "unfinished" if it
    has begun (the same command continues it), and else "missing".
    """
    rows = []
    for name, run in runs.items():
        folder = RunFolder(run, runs_root)
        if folder.finished:
            state = "done"
        elif is_locked(folder.lock):
            state = "running"
        elif folder.path.exists():
            state = "unfinished"
        else:
            state = "missing"
        epoch = 0
        if folder.checkpoint.exists():
            epoch = checkpoints.read_state(folder.checkpoint)["epoch"]
        rows.append((name, run.fingerprint, state, f"{epoch}/{run.train.epochs}"))
    return pd.DataFrame(rows, columns=["run", "fingerprint", "state", "epochs"])


def train_missing(
    runs: dict[str, RunConfig],
    runs_root: Path,
    data_root: Path,
    side_by_side: Callable | None = None,
    progress: bool = True,
    objective: PaperObjective | None = None,
) -> list[str]:
    """Trains those of the named runs that have no result, by default one a core.

    `objective` is as of `train`. Returns the names of the runs that were missing. Raises RunsError
    if some failed.
    """
    missing = {
        name: run for name, run in runs.items() if read_result(run.fingerprint, runs_root) is None
    }
    if not missing:
        return []
    # The data is rendered and checked once, before several processes want it.
    for data in {run.data for run in missing.values()}:
        open_data(data, data_root)
    work = partial(_train, data_root=data_root, runs_root=runs_root, objective=objective)
    ended = (side_by_side or on_this_machine)(work, missing)
    errors = {}
    bar = tqdm(
        desc="variants",
        total=len(runs),
        initial=len(runs) - len(missing),
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
    return list(missing)


def _train(run: RunConfig, device: str | None, **options) -> None:
    with warnings.catch_warnings():
        # The parent process has already said this of the data.
        warnings.filterwarnings("ignore", message=".*(Is the set complete| too: )")
        train(run, device=device, progress=False, **options)


def on_this_machine(
    work: Callable,
    runs: dict[str, RunConfig],
    processes: int | None = None,
    devices: Sequence[str] | None = None,
) -> Iterator[tuple[str, str]]:
    """Yields each run's name and error ("": none) as it ends.

    Each process has a pool of its own: one that is killed loses its own run only.
    """
    if not devices:
        devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]
    on_cpu = set(devices) == {"cpu"}
    most = processes or (cores() if on_cpu else len(devices))
    count = min(most, len(runs))
    threads = 1 if on_cpu else max(1, cores() // count)

    waiting = deque(runs)
    running = {}  # by future, the run's name and the place of its pool
    with ExitStack() as stack:
        pools = [stack.enter_context(pool(1, threads)) for _ in range(count)]
        free = list(range(count))
        while waiting or running:
            while waiting and free:
                name = waiting.popleft()
                place = free.pop(0)
                device = devices[place % len(devices)]
                running[pools[place].submit(work, runs[name], device)] = name, place
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name, place = running.pop(future)
                error = future.exception()
                message = "".join(traceback.format_exception(error)) if error else ""
                if isinstance(error, BrokenProcessPool):
                    message = (
                        "its process was killed, often for want of memory; "
                        "the same command continues the run"
                    )
                    pools[place] = stack.enter_context(pool(1, threads))
                free.append(place)
                yield name, message


def _on_cluster(
    work: Callable, runs: dict[str, RunConfig], cluster: dict, folder: Path, limit: int | None
) -> Iterator[tuple[str, str]]:
    """As `on_this_machine`, but each run is a job of submitit.

    After an error or Ctrl-C it cancels the jobs that have not ended.
    """
    try:
        import submitit
    except ImportError as error:
        raise ImportError(
            'submitit is not installed; a cluster needs it: pip install "fusionreid[cluster]"'
        ) from error
    parameters = {"timeout_min": 24 * 60} | cluster
    executor = submitit.AutoExecutor(folder=folder, cluster=parameters.pop("cluster", None))
    if limit and executor.cluster == "slurm":
        parameters["slurm_array_parallelism"] = limit
    executor.update_parameters(**parameters)
    devices = [None] * len(runs)  # a job trains on the GPU that it has been given
    jobs = executor.map_array(_Resumable(work), list(runs.values()), devices)
    names = {job.job_id: name for job, name in zip(jobs, runs, strict=True)}
    try:
        for job in submitit.helpers.as_completed(jobs, poll_frequency=1):
            yield names.pop(job.job_id), str(job.exception() or "")
    finally:
        for job in jobs:
            if job.job_id in names:
                job.cancel()


class _Resumable(partial):
    """Work that goes back to the queue when its job is pre-empted or out of time.

    The run then continues from its last saved epoch.
    """

    def checkpoint(self, *arguments):
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)
