"""The whole reproduction without a browser: papermill over `notebooks/`, in order.

    python -m fusionreid reproduce --profile demo
    python -m fusionreid reproduce --only 03 05 -p SEEDS "[0, 1, 2]"

Executed copies go to `runs/notebooks/<profile>-<dataset>/`. The notebooks themselves change only with `--update`,
which makes the committed outputs.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import config, paths
from .notebooks import NotebookError, find, parameters, update


def plan(notebooks: list[Path], given: dict[str, object], usual: dict[str, object]) -> dict[Path, dict[str, object]]:
    """What to inject into each notebook: the values that differ from its own.

    A NotebookError says that no notebook knows a name in `given`, of which papermill would only warn.
    """
    known = {path: parameters(path) for path in notebooks}
    for name in given:
        if name in usual:
            raise NotebookError(f"-p {name}: use the option --{name.lower()}")
        if not any(name in values for values in known.values()):
            lines = "\n".join(f"  {path.stem}: {', '.join(values) or 'none'}" for path, values in known.items())
            raise NotebookError(f"-p {name}: no selected notebook has this parameter; they have\n{lines}")
    wanted = {**usual, **given}
    return {
        path: {name: wanted[name] for name, value in values.items() if wanted.get(name, value) != value}
        for path, values in known.items()
    }


def execute(source: Path, target: Path, values: dict[str, object], *, progress: bool = True) -> None:
    """Runs one notebook and writes the executed copy, also when it fails; the NotebookError then quotes the cell."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    target.parent.mkdir(parents=True, exist_ok=True)
    log = target.with_suffix(".log")
    bar = {"desc": source.stem, "leave": False, "position": 1, "disable": None} if progress else False
    options = {"kernel_name": "python3", "kernel_manager_class": _logged_kernel(log), "start_timeout": 300}
    options["coalesce_streams"] = True  # what a cell prints is one output, not one a line
    try:
        papermill.execute_notebook(source, target, values, cwd=source.parent, progress_bar=bar, **options)
    except PapermillExecutionError as error:
        head = "\n".join(f"    {line}" for line in error.source.strip().splitlines()[:4])
        raise NotebookError(
            f"{source.name} failed in cell {error.cell_index} (In [{error.exec_count}]):\n{head}\n"
            f"{error.ename}: {error.evalue}\nThe whole traceback is in {_shown(target)}"
        ) from error
    except DeadKernelError as error:
        raise NotebookError(f"{source.name}: the kernel died, often for want of memory; see {_shown(log)}") from error


def _logged_kernel(log: Path) -> type:
    """A kernel manager whose kernels write warnings and crashes to a file, not into the progress bar."""
    from jupyter_client import AsyncKernelManager

    class LoggedKernel(AsyncKernelManager):
        async def start_kernel(self, **options):
            with open(log, "wb") as file:
                await super().start_kernel(**options, stdout=file, stderr=file)

    return LoggedKernel


@contextmanager
def memory() -> Iterator[list[int]]:
    """Twice a second, the bytes that this process and its descendants hold; what they share is counted in each."""
    import psutil

    this, samples, ended = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            samples.append(0)
            for process in [this, *this.children(recursive=True)]:
                with suppress(psutil.Error):  # it has ended meanwhile
                    samples[-1] += process.memory_info().rss

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
    """Executes the notebooks of the repository in order, and stops at the first that fails.

    `only` are numbers or names of notebooks, `given` values of their parameters by name; `overwrite` writes the outputs
    into `notebooks/` (the demo on synthetic data, with no value given). Returns for each notebook {"notebook",
    "seconds", "peak_bytes"}. Raises ValueError for an unknown profile or data set, NotebookError for an unknown
    notebook or parameter, or a notebook that failed.
    """
    from tqdm import tqdm

    dataset = config.DataConfig(name=dataset or config.profile(profile).data.name).name
    if overwrite and ((profile, dataset) != ("demo", "synthetic") or given):
        raise NotebookError("--update: committed outputs are those of the demo profile on synthetic data, nothing else")
    if not paths.NOTEBOOKS.is_dir():
        needed = "the notebooks come with the repository, not with the installed package: clone it and run this there"
        raise NotebookError(f"{paths.NOTEBOOKS}: no such folder; {needed}, or name the checkout in FUSIONREID_ROOT")
    notebooks = find(paths.NOTEBOOKS, only)
    injected = plan(notebooks, given or {}, {"PROFILE": profile, "DATASET": dataset})
    folder = paths.RUNS / "notebooks" / f"{profile}-{dataset}"
    # What kernels inherit: the kernel of this interpreter, the profile, no bars in cells.
    kernels = str(Path(sys.prefix) / "share" / "jupyter")
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [kernels, os.environ.get("JUPYTER_PATH")]))
    os.environ |= {"FUSIONREID_PROFILE": profile, "TQDM_DISABLE": "1"}
    print(f"profile {profile}, data {dataset}: {len(notebooks)} notebooks -> {_shown(folder)}", flush=True)
    rows = []
    with tqdm(total=len(notebooks), unit="notebook", disable=None if progress else True, position=0) as bar:
        for source in notebooks:
            bar.set_description(source.stem)
            started = time.perf_counter()
            with memory() as samples:
                execute(source, folder / source.name, injected[source], progress=progress)
            if overwrite:
                update(source, folder / source.name)
            rows.append({"notebook": source.stem, "seconds": time.perf_counter() - started, "peak_bytes": max(samples)})
            bar.update()
            tqdm.write(_row(**rows[-1]))
            sys.stdout.flush()
    print(_row("all", sum(row["seconds"] for row in rows), max(row["peak_bytes"] for row in rows)), flush=True)
    return rows


def _row(notebook: str, seconds: float, peak_bytes: int) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{notebook:<28}{minutes:>4} min {rest:02d} s   peak {peak_bytes / 2**30:.1f} GiB"


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
