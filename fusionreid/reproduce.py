"""The whole reproduction without a browser: papermill over `notebooks/`, two at once on a CPU.

    python -m fusionreid reproduce --profile demo
    python -m fusionreid reproduce --only 03 05 -p SEEDS "[0, 1, 2]"

Executed copies go to `runs/notebooks/<profile>-<dataset>/`. The notebooks themselves change only
with `--update`, which makes the committed outputs.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from unittest import mock

from . import config, paths
from .devices import default_device
from .files import writing
from .notebooks import NotebookError, find, parameters, resolve, update
from .options import one_of
from .processes import cores

SUMMARY = "12_summary"  # it shows what all other notebooks have trained


def plan(
    notebooks: list[Path], profile: str, dataset: str, given: dict[str, object]
) -> dict[Path, dict[str, object]]:
    """The values to inject into each notebook: those that differ from the notebook's own.

    Raises ValueError for a name that no notebook has (papermill would only warn), and for a value
    that a parameter of this name may not have.
    """
    own = {path: parameters(path) for path in notebooks}
    known = dict.fromkeys(chain.from_iterable(own.values()))
    for name in given:
        if name in ("PROFILE", "DATASET"):
            raise ValueError(f"-p {name}: use the option --{name.lower()}")
        one_of("-p: parameter", name, known)
    values = {"PROFILE": profile, "DATASET": dataset, **given}
    values = dict(zip(values, resolve(**values), strict=True))
    injected = {}
    for path, literals in own.items():
        injected[path] = {
            name: values[name]
            for name, literal in literals.items()
            if values.get(name, literal) != literal
        }
    return injected


def execute(source: Path, target: Path, values: dict[str, object]) -> float:
    """Runs one notebook in a kernel of its own; returns the seconds it took.

    The executed copy is written also when it fails; the NotebookError then quotes the cell.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    target.parent.mkdir(parents=True, exist_ok=True)
    log = target.with_suffix(".log")
    started = time.perf_counter()
    try:
        with writing(target):
            papermill.execute_notebook(
                source,
                target,
                values,
                cwd=source.parent,
                progress_bar={"desc": source.stem, "leave": False, "disable": None},
                kernel_name="python3",
                kernel_manager_class=_logged_kernel(log),
                start_timeout=300,
                coalesce_streams=True,  # what a cell prints is one output, not one a line
            )
    except PapermillExecutionError as error:
        cell = "\n".join(f"    {line}" for line in error.source.strip().splitlines()[:4])
        raise NotebookError(
            f"{source.name} failed in cell {error.cell_index} (In [{error.exec_count}]):\n{cell}\n"
            f"{error.ename}: {error.evalue}\nThe whole traceback is in {target}"
        ) from error
    except DeadKernelError as error:
        raise NotebookError(
            f"{source.name}: the kernel died, often for want of memory; see {log}"
        ) from error
    return time.perf_counter() - started


def _logged_kernel(log: Path) -> type:
    """A kernel manager whose kernels write warnings and crashes to a file, not into the bar."""
    from jupyter_client import AsyncKernelManager

    class LoggedKernel(AsyncKernelManager):
        async def start_kernel(self, **options):
            with open(log, "wb") as file:
                await super().start_kernel(**options, stdout=file, stderr=file)

    return LoggedKernel


def reproduce(
    profile: str = "demo",
    dataset: str | None = None,
    *,
    only: list[str] | None = None,
    given: dict[str, object] | None = None,
    overwrite: bool = False,
) -> list[dict]:
    """Executes the notebooks of the repository, and stops at the first that fails.

    Without a GPU two run at once, as one alone leaves cores idle. The summary comes last, when
    all others have ended.

    Args:
        dataset: default: the profile's.
        only: numbers or names of notebooks; default: all.
        given: values of their parameters, by name.
        overwrite: write the outputs into `notebooks/`: the demo on synthetic data, nothing given.

    Returns {"notebook", "seconds"} for each, as they ended.

    Raises ValueError for an unknown profile, data set, parameter or value, NotebookError for an
    unknown notebook, or one that failed.
    """
    from tqdm import tqdm

    dataset = dataset or config.profile(profile).data.name
    if overwrite and ((profile, dataset) != ("demo", "synthetic") or given):
        raise NotebookError(
            "--update: committed outputs are those of the demo profile on synthetic data, "
            "nothing else"
        )
    notebooks = find(paths.NOTEBOOKS, only)
    injected = plan(notebooks, profile, dataset, given or {})
    folder = paths.RUNS / "notebooks" / f"{profile}-{dataset}"
    print(f"profile {profile}, data {dataset}: {len(notebooks)} notebooks -> {folder}", flush=True)

    at_once = 1 if default_device().type == "cuda" else min(2, cores(), len(notebooks))
    # Of two that run at once, each has half of the cores and one more, as the other does not
    # always need its own.
    share = cores() // at_once + at_once - 1
    environment = {"FUSIONREID_CORES": str(share), "TQDM_DISABLE": "1"}
    if at_once > 1:
        # Threads of two kernels that share a core wait for each other: five times as slow.
        environment["OMP_NUM_THREADS"] = str(max(1, cores() // at_once))
    # The kernels of this interpreter's environment come before those of the user.
    kernels = f"{sys.prefix}/share/jupyter"
    environment["JUPYTER_PATH"] = os.pathsep.join([kernels, os.environ.get("JUPYTER_PATH", "")])
    rows = []
    # The sort is stable: all others keep their order.
    waiting = deque(sorted(notebooks, key=lambda path: path.stem == SUMMARY))
    running: dict[Future, Path] = {}
    started = time.perf_counter()
    bar = tqdm(total=len(notebooks), unit="notebook", disable=None, position=0)
    inherited = mock.patch.dict(os.environ, environment)
    with inherited, bar, ThreadPoolExecutor(at_once) as threads, _kernels_end(running):
        while waiting or running:
            while waiting and len(running) < at_once:
                if waiting[0].stem == SUMMARY and running:
                    break
                path = waiting.popleft()
                future = threads.submit(execute, path, folder / path.name, injected[path])
                running[future] = path
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                path = running.pop(ended)
                rows.append({"notebook": path.stem, "seconds": ended.result()})
                if overwrite:
                    update(path, folder / path.name)
                bar.update()
                tqdm.write(_row(**rows[-1]))
                sys.stdout.flush()
    print(_row("all", time.perf_counter() - started), flush=True)
    return rows


@contextmanager
def _kernels_end(running: dict[Future, Path]) -> Iterator[None]:
    """After an error or Ctrl-C, ends the kernels that still run: then their threads end, too."""
    import psutil

    this = psutil.Process()
    before = set(this.children())
    try:
        yield
    finally:
        while not all(future.done() for future in running):
            for kernel in set(this.children()) - before:
                with suppress(psutil.NoSuchProcess):  # it has just ended
                    kernel.terminate()
            time.sleep(0.5)


def _row(notebook: str, seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{notebook:<28}{minutes:>4} min {rest:02d} s"
