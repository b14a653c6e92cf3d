"""The whole reproduction without a browser: papermill over `notebooks/`, two at once on a CPU.

    python -m fusionreid reproduce --profile demo
    python -m fusionreid reproduce --only 03 05 -p SEEDS "[0, 1, 2]"

Executed copies go to `runs/notebooks/<profile>-<dataset>/`. The notebooks themselves change only with `--update`,
which makes the committed outputs.
"""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path

from . import config, paths
from .files import writing
from .notebooks import NotebookError, find, parameters, update
from .processes import cores

SUMMARY = "12_summary"  # it reads what the notebooks before it have trained


def plan(
    notebooks: list[Path], given: dict[str, object], usual: dict[str, object]
) -> dict[Path, dict[str, object]]:
    """What to inject into each notebook: the values that differ from its own.

    A NotebookError says that no notebook knows a name in `given`, of which papermill would only warn.
    """
    known = {path: parameters(path) for path in notebooks}
    for name in given:
        if name in usual:
            raise NotebookError(f"-p {name}: use the option --{name.lower()}")
        if not any(name in values for values in known.values()):
            lines = "\n".join(
                f"  {path.stem}: {', '.join(values) or 'none'}" for path, values in known.items()
            )
            raise NotebookError(
                f"-p {name}: no selected notebook has this parameter; they have\n{lines}"
            )
    wanted = {**usual, **given}
    return {
        path: {
            name: wanted[name] for name, value in values.items() if wanted.get(name, value) != value
        }
        for path, values in known.items()
    }


def execute(
    source: Path, target: Path, values: dict[str, object], environment: dict, progress: bool = True
) -> float:
    """Runs one notebook in a kernel with these environment variables; returns how many seconds it took.

    The executed copy is written also when it fails; the NotebookError then quotes the cell.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    target.parent.mkdir(parents=True, exist_ok=True)
    log = target.with_suffix(".log")
    bar = {"desc": source.stem, "leave": False, "disable": None} if progress else False
    kernel = _logged_kernel(log, environment)
    options = {"kernel_name": "python3", "kernel_manager_class": kernel, "start_timeout": 300}
    options["coalesce_streams"] = True  # what a cell prints is one output, not one a line
    started = time.perf_counter()
    try:
        with writing(target):
            papermill.execute_notebook(
                source, target, values, cwd=source.parent, progress_bar=bar, **options
            )
    except PapermillExecutionError as error:
        head = "\n".join(f"    {line}" for line in error.source.strip().splitlines()[:4])
        raise NotebookError(
            f"{source.name} failed in cell {error.cell_index} (In [{error.exec_count}]):\n{head}\n"
            f"{error.ename}: {error.evalue}\nThe whole traceback is in {_shown(target)}"
        ) from error
    except DeadKernelError as error:
        raise NotebookError(
            f"{source.name}: the kernel died, often for want of memory; see {_shown(log)}"
        ) from error
    return time.perf_counter() - started


def _logged_kernel(log: Path, environment: dict[str, str]) -> type:
    """A kernel manager whose kernels write warnings and crashes to a file, not into the progress bar."""
    from jupyter_client import AsyncKernelManager

    class LoggedKernel(AsyncKernelManager):
        async def start_kernel(self, **options):
            with open(log, "wb") as file:
                options["env"] = dict(options.get("env") or os.environ) | environment
                await super().start_kernel(**options, stdout=file, stderr=file)

    return LoggedKernel


@contextmanager
def memory() -> Iterator[list[int]]:
    """Every five seconds, the bytes that this process and its descendants hold; what they share counts once (Linux)."""
    import psutil

    this, samples, ended = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while True:
            samples.append(0)
            for process in [this, *this.children(recursive=True)]:
                with suppress(psutil.Error):  # it has ended meanwhile
                    held = process.memory_full_info()
                    samples[-1] += getattr(held, "pss", held.uss)
            if ended.wait(5):
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield samples
    finally:
        ended.set()


def reproduce(
    profile: str = "demo",
    dataset: str | None = None,
    *,
    only: list[str] | None = None,
    given: dict[str, object] | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> list[dict]:
    """Executes the notebooks of the repository, and stops at the first that fails.

    Without a GPU two run at once, as one alone leaves cores idle; the summary waits for those before it. `only` are
    numbers or names of notebooks, `given` values of their parameters by name; `overwrite` writes the outputs into
    `notebooks/` (the demo on synthetic data, with no value given). Returns {"notebook", "seconds"} for each, as they
    ended. Raises ValueError for an unknown profile or data set, NotebookError for an unknown notebook or parameter, or
    a notebook that failed.
    """
    import psutil
    from tqdm import tqdm

    from .devices import default_device

    dataset = config.DataConfig(name=dataset or config.profile(profile).data.name).name
    if overwrite and ((profile, dataset) != ("demo", "synthetic") or given):
        raise NotebookError(
            "--update: committed outputs are those of the demo profile on synthetic data, nothing else"
        )
    if not paths.NOTEBOOKS.is_dir():
        needed = "the notebooks come with the repository, not with the installed package: clone it and run this there"
        raise NotebookError(
            f"{paths.NOTEBOOKS}: no such folder; {needed}, or name the checkout in FUSIONREID_ROOT"
        )
    notebooks = find(paths.NOTEBOOKS, only)
    injected = plan(notebooks, given or {}, {"PROFILE": profile, "DATASET": dataset})
    folder = paths.RUNS / "notebooks" / f"{profile}-{dataset}"
    at_once = 1 if default_device().type == "cuda" else min(2, cores(), len(notebooks))
    # The kernel is this interpreter's. Of two that run at once, each has half of the cores and one more, as the other
    # does not always need its own.
    kernels = str(Path(sys.prefix) / "share" / "jupyter")
    os.environ["JUPYTER_PATH"] = os.pathsep.join(
        filter(None, [kernels, os.environ.get("JUPYTER_PATH")])
    )
    share = str(cores() // at_once + at_once - 1)
    environment = {"FUSIONREID_PROFILE": profile, "FUSIONREID_CORES": share, "TQDM_DISABLE": "1"}
    print(
        f"profile {profile}, data {dataset}: {len(notebooks)} notebooks -> {_shown(folder)}",
        flush=True,
    )
    this = psutil.Process()
    rows, waiting, running, before, started = (
        [],
        deque(notebooks),
        {},
        {*this.children()},
        time.perf_counter(),
    )
    bar = tqdm(
        total=len(notebooks), unit="notebook", disable=None if progress else True, position=0
    )
    with memory() as samples, bar, ThreadPoolExecutor(at_once) as threads:
        try:
            while waiting or running:
                while (
                    waiting
                    and len(running) < at_once
                    and not (running and waiting[0].stem == SUMMARY)
                ):
                    source = waiting.popleft()
                    target, values = folder / source.name, injected[source]
                    running[
                        threads.submit(execute, source, target, values, environment, progress)
                    ] = source, target
                for ended in wait(running, return_when=FIRST_COMPLETED).done:
                    source, target = running.pop(ended)
                    rows.append({"notebook": source.stem, "seconds": ended.result()})
                    if overwrite:
                        update(source, target)
                    bar.update()
                    tqdm.write(_row(**rows[-1]))
                    sys.stdout.flush()
        finally:  # after an error or Ctrl-C: without their kernels, the threads end
            while running := wait(running, timeout=0.5).not_done:
                for kernel in {*this.children()} - before:
                    kernel.terminate()
    print(
        _row("all", time.perf_counter() - started),
        f"  peak {max(samples) / 2**30:.1f} GiB",
        flush=True,
    )
    return rows


def _row(notebook: str, seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{notebook:<28}{minutes:>4} min {rest:02d} s"


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
