"""The notebook files: which there are, their parameters, and what of an executed one is fit to commit."""

import ast
import os
from pathlib import Path

from . import paths
from .config import Profile
from .config import profile as find_profile
from .files import atomic_write

WIDGET = "application/vnd.jupyter.widget-view+json"  # a progress bar


class NotebookError(Exception):
    """A notebook that cannot be run, or that failed; the message says which, where and why."""


def chosen(profile: str) -> Profile:
    """The profile that a notebook's parameters name; over the committed "demo", $FUSIONREID_PROFILE wins."""
    return find_profile(
        os.environ.get("FUSIONREID_PROFILE") or profile if profile == "demo" else profile
    )


def find(folder: Path, only: list[str] | None = None) -> list[Path]:
    """A folder's notebooks `NN_name.ipynb` in order, or those in `only` (number or name); else a NotebookError."""
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise NotebookError(f"{folder}: expected notebooks named NN_name.ipynb, found none")
    wanted = [Path(name).stem for name in only or []]
    for name in wanted:
        if not any(name in (path.stem, path.stem[:2]) for path in found):
            raise NotebookError(
                f"--only {name}: no such notebook; there are: {', '.join(path.stem for path in found)}"
            )
    return [path for path in found if not wanted or path.stem in wanted or path.stem[:2] in wanted]


def parameters(path: Path) -> dict[str, object]:
    """The names and literals in a notebook's one cell tagged `parameters`; a NotebookError if it has none such."""
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
                case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(
                    ast.Name(name), _, value
                ) if value is not None:
                    values[name] = ast.literal_eval(value)
                case _:
                    raise ValueError(f"line {statement.lineno} is no assignment to one name")
    except (SyntaxError, ValueError) as error:
        raise NotebookError(
            f"{path}: its `parameters` cell must hold literals only, NAME = value; {error}"
        ) from error
    return values


def clean(notebook) -> None:
    """Makes an executed notebook fit to commit, in place: without traces of the machine and the run.

    Removes papermill's metadata and injected cell, widgets and what was written to stderr, and the checkout's folder
    from paths; numbers the code cells from 1, and names the kernel `python3`.
    """
    notebook.cells = [
        cell
        for cell in notebook.cells
        if "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    notebook.metadata.clear()
    notebook.metadata.update(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = type(cell.metadata)({"tags": tags} if tags else {})
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, start=1):
        cell.execution_count = count
        cell.outputs = [
            o for o in cell.outputs if o.get("name") != "stderr" and WIDGET not in o.get("data", {})
        ]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
            if "text" in output:
                output.text = output.text.replace(f"{paths.ROOT}{os.sep}", "")


def update(source: Path, executed: Path) -> None:
    """Writes an executed copy's outputs, cleaned, over the notebook it was made from."""
    import nbformat

    notebook = nbformat.read(executed, as_version=4)
    clean(notebook)
    with atomic_write(source) as temporary:
        nbformat.write(notebook, temporary)
