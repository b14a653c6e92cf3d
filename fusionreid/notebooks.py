"""The notebook files: which there are, their parameters, and what of a run is fit to commit."""

import ast
import os
from pathlib import Path

from . import paths
from .config import DataConfig, profile
from .files import atomic_write
from .options import expect, literal

WIDGET = "application/vnd.jupyter.widget-view+json"  # a progress bar


class NotebookError(Exception):
    """A notebook that cannot be run, or that failed; the message says which, where and why."""


def resolve(**values) -> list:
    """The values of a notebook's parameters, in the order given, as its cells need them.

    `PROFILE=""` is $FUSIONREID_PROFILE, or "demo"; any other value wins over the variable. Text in
    place of numbers is read as Python writes them, because papermill passes a tuple, and what its
    shell does not know, as text.

    Raises ValueError, naming the parameter, what was expected and what was found.
    """
    return [_resolve(name, value) for name, value in values.items()]


def _resolve(name: str, value):
    match name:
        case "PROFILE":
            return profile(value or os.environ.get("FUSIONREID_PROFILE") or "demo").name
        case "DATASET":
            from .data.layouts import check_name  # brings torch

            name = DataConfig(name=value).name
            check_name(name, paths.DATA)
            return name
        case "MODEL":
            return expect(name, value, str)
    if isinstance(value, str):
        value = literal(value)
    match name:
        case "SEEDS":
            if not isinstance(value, (list, tuple)) or not value:
                raise ValueError(f"{name}={value!r}; expected a list of whole numbers, like [0]")
            return [expect(name, seed, int, 0) for seed in value]
        case "SEED":
            return expect(name, value, int, 0)
        case "ALL":
            return expect(name, value, bool)
        case "TOLERANCE":
            return expect(name, value, float, 0)
        case "QUERIES" | "PEOPLE" | "TRIED" | "MEASURED" | "MAPPED" | "SHOWN":
            return expect(name, value, int, 1)
        case _:
            return value


def find(folder: Path, only: list[str] | None = None) -> list[Path]:
    """A folder's notebooks `NN_name.ipynb` in order, or those in `only`, by number or name.

    Raises NotebookError if there are none, or none of such a name.
    """
    notebooks = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not notebooks:
        raise NotebookError(
            f"{folder}: expected notebooks named NN_name.ipynb, found none. They come with the "
            "repository, not with the installed package: clone it and run this there, or name the "
            "checkout in FUSIONREID_ROOT"
        )
    if not only:
        return notebooks
    chosen = set()
    for name in only:
        stem = name.removesuffix(".ipynb")
        matches = [path for path in notebooks if stem in (path.stem, path.stem[:2])]
        if not matches:
            known = ", ".join(path.stem for path in notebooks)
            raise NotebookError(f"--only {name}: no such notebook; there are: {known}")
        chosen.update(matches)
    return sorted(chosen)


def parameters(path: Path) -> dict[str, object]:
    """The names and literals in the one cell tagged `parameters`.

    Raises NotebookError if there is no such cell, or more than one, or anything but literals in it.
    """
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises its own kinds for JSON, schema and version
        raise NotebookError(
            f"{path}: not a readable notebook ({type(error).__name__}: {error})"
        ) from error
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise NotebookError(f"{path}: expected one cell tagged `parameters`, found {len(cells)}")
    values = {}
    try:
        for statement in ast.parse(cells[0].source).body:
            match statement:
                case ast.Assign([ast.Name(name)], value):
                    values[name] = ast.literal_eval(value)
                case _:
                    raise ValueError(f"line {statement.lineno} is no assignment to one name")
    except (SyntaxError, ValueError) as error:
        raise NotebookError(
            f"{path}: its `parameters` cell must hold literals only, NAME = value; {error}"
        ) from error
    return values


def clean(notebook) -> None:
    """Makes an executed notebook fit to commit, in place: no traces of the machine and the run.

    Removes papermill's metadata and injected cell, widgets and what was written to stderr, and the
    checkout's folder from paths; numbers the code cells from 1, and names the kernel `python3`.
    """
    notebook.metadata.clear()
    notebook.metadata.update(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    cells = []
    count = 0
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            continue
        cell.metadata.clear()
        if tags:
            cell.metadata["tags"] = tags
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = [
                _clean_output(output, count) for output in cell.outputs if _stays(output)
            ]
        cells.append(cell)
    notebook.cells = cells


def _stays(output) -> bool:
    return output.get("name") != "stderr" and WIDGET not in output.get("data", {})


def _clean_output(output, count: int):
    if "execution_count" in output:
        output.execution_count = count
    if "text" in output:
        output.text = output.text.replace(f"{paths.ROOT}{os.sep}", "")
    return output


def update(source: Path, executed: Path) -> None:
    """Writes an executed copy's outputs, cleaned, over the notebook it was made from."""
    import nbformat

    notebook = nbformat.read(executed, as_version=4)
    clean(notebook)
    with atomic_write(source) as temporary:
        nbformat.write(notebook, temporary)
