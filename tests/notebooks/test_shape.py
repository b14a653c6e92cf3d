"""The shape of every committed notebook: one question, literals as parameters, short cells, output.

What is wrong with a notebook is listed by `problems`, which is itself tried on notebooks that are
wrong on purpose.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fusionreid.notebooks import NotebookError, parameters

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [
    "00_data",
    "01_model",
    "02_cost",
    "03_train",
    "04_state_of_the_art",
    "05_components",
    "06_htm_structure",
    "07_pooling_and_backbones",
    "08_htm_depth",
    "09_fusion_dimension",
    "10_gradcam",
    "11_attention",
    "12_summary",
    "13_explore",
    "14_text_and_code",
    "15_verification",
]
CELL_LINES, FUNCTION_LINES, FILE_BYTES = 15, 10, 2 * 2**20
MACHINE_PATH = re.compile(
    r"(?<![\w.~:/])/(home|Users|root|tmp|private|mnt|work|scratch)/|[A-Z]:\\\\?Users"
)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_has_the_shape(path):
    assert path.stem in NAMES
    assert path.stat().st_size <= FILE_BYTES, "too large for a code host to show"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    try:
        values = parameters(path)
        found = [*problems(notebook), *wrong_parameters(values), *unresolved(notebook, values)]
    except NotebookError as error:
        found = [str(error)]
    assert not found, f"{path.name}:\n" + "\n".join(found)


def test_notebooks_are_numbered_and_linked():
    """A title "# NN · ...", and in the last cell links to the notebook before and the next."""
    for place, path in enumerate(NOTEBOOKS):
        cells = nbformat.read(path, as_version=4).cells
        assert cells[0].source.startswith(f"# {path.stem[:2]} · "), path.stem
        neighbours = [
            NOTEBOOKS[other].name for other in (place - 1, place + 1) if 0 <= other < len(NOTEBOOKS)
        ]
        assert re.findall(r"\]\((\S+)\)", cells[-1].source) == neighbours, path.stem


def test_committed_figures_are_named_after_their_notebooks():
    numbers = {path.stem[:2] for path in NOTEBOOKS}
    figures = [path for path in (ROOT / "figures").glob("*") if path.name[:2].isdigit()]
    assert {path.name[:2] for path in figures} <= numbers


def problems(notebook) -> list[str]:
    """What is wrong with an executed notebook, a line each."""
    return [*wrong_prose(notebook), *wrong_code(notebook), *wrong_outputs(notebook)]


def wrong_prose(notebook):
    first, *_, last = notebook.cells
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        yield "the first cell is not markdown with a title"
    opening = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            break
        opening.append(cell.source)
    questions, bullets = first.source.count("?"), len(re.findall(r"(?m)^[-*] ", "\n".join(opening)))
    if questions != 1:
        yield f"the first cell asks {questions} questions, not one"
    if not 3 <= bullets <= 5:
        yield f"{bullets} bullets of what should be seen, before the code; expected 3 to 5"
    if last.cell_type != "markdown":
        yield "the last cell is not markdown that says what was found"


def wrong_code(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [
        place for place, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])
    ]
    if tagged not in ([0], [1]):
        yield "the one cell tagged `parameters` is not the first or second code cell"
    for number, cell in enumerate(cells, start=1):
        where, lines = f"code cell {number}", cell.source.strip().splitlines()
        if len(lines) > CELL_LINES:
            yield f"{where}: {len(lines)} lines; at most {CELL_LINES}"
        if "sys.path" in cell.source or re.search(r"(?m)^\s*!|get_ipython\(\)", cell.source):
            yield f"{where}: sys.path or a shell command"
        code = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ClassDef):
                yield f"{where}: class {node.name}"
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                if length > FUNCTION_LINES:
                    limit = f"has {length} lines; at most {FUNCTION_LINES}"
                    yield f"{where}: function {node.name} {limit}"


def wrong_outputs(notebook):
    if extra := set(notebook.metadata) - {"kernelspec", "language_info"}:
        yield f"metadata of a machine or a run: {sorted(extra)}"
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        yield "not executed once from top to bottom (execution counts)"
    if not any(cell.outputs for cell in cells):
        yield "no outputs"
    for number, cell in enumerate(cells, start=1):
        kinds = [output.output_type for output in cell.outputs]
        if "error" in kinds:
            yield f"code cell {number}: an error in its output"
        if any(output.get("name") == "stderr" for output in cell.outputs):
            yield f"code cell {number}: stderr in its output"
        if "NBVAL_CHECK_OUTPUT" in cell.source and not kinds:
            yield f"code cell {number}: nbval is to check an output that is not there"
    for number, cell in enumerate(notebook.cells, start=1):
        if path := MACHINE_PATH.search("\n".join([cell.source, *texts(cell.get("outputs", []))])):
            yield f"cell {number}: a machine's path, {path.group()}..."


def texts(outputs):
    """All text in outputs, images left out."""
    for output in outputs:
        yield output.get("text", "")
        yield from (
            str(value)
            for kind, value in output.get("data", {}).items()
            if not kind.startswith("image/")
        )


def wrong_parameters(values):
    if shouted := [name for name in values if not name.isupper()]:
        yield f"parameters in lower case: {shouted}"
    for name, committed in (("PROFILE", ""), ("DATASET", "synthetic")):
        if values.get(name, committed) != committed:
            yield f"{name} is committed as {values[name]!r}, not {committed!r}"


def unresolved(notebook, values):
    """The cell after the parameters looks at all of them, in one call of `resolve`."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = ["parameters" in cell.metadata.get("tags", []) for cell in cells]
    following = cells[tagged.index(True) + 1].source
    code = "\n".join(line for line in following.splitlines() if not line.startswith("%"))
    names = ", ".join(values)
    arguments = ", ".join(f"{name}={name}" for name in values)
    expected = ast.unparse(ast.parse(f"{names}, = resolve({arguments})"))
    if expected not in ast.unparse(ast.parse(code)):
        yield f"the cell after the parameters is without {expected}"


def right():
    """A notebook of the right shape."""
    show = new_output("stream", name="stdout", text="0.5\n")
    return new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3"},
            "language_info": {"name": "python"},
        },
        cells=[
            new_markdown_cell("# Is it right?\n\n- one\n- two\n- three"),
            new_code_cell("import os", execution_count=1),
            new_code_cell('PROFILE = ""', execution_count=2, metadata={"tags": ["parameters"]}),
            new_code_cell("%matplotlib inline\nprint(0.5)", execution_count=3, outputs=[show]),
            new_markdown_cell("It is."),
        ],
    )


def test_the_right_shape_has_no_problems():
    assert problems(right()) == []


@pytest.mark.parametrize(
    "place, change, problem",
    [
        (0, {"source": "Is it right?\n- a\n- b\n- c"}, "title"),
        (0, {"source": "# Is it right? Or wrong?\n- a\n- b\n- c"}, "2 questions"),
        (0, {"source": "# Is it right?\n- a"}, "1 bullets"),
        (2, {"metadata": {}}, "tagged `parameters`"),
        (3, {"metadata": {"tags": ["parameters"]}}, "tagged `parameters`"),
        (3, {"source": "\n".join("x" * 16)}, "16 lines"),
        (3, {"source": "class A: pass"}, "class A"),
        (3, {"source": "def f():\n" + "    x\n" * 10}, "function f has 11 lines"),
        (3, {"source": "!ls"}, "shell"),
        (3, {"source": "import sys\nsys.path.append('..')"}, "sys.path"),
        (3, {"execution_count": 7}, "execution counts"),
        (3, {"execution_count": None}, "execution counts"),
        (3, {"outputs": []}, "no outputs"),
        (3, {"outputs": [new_output("error", ename="E", evalue="", traceback=[])]}, "an error"),
        (3, {"outputs": [new_output("stream", name="stderr", text="x")]}, "stderr"),
        (
            3,
            {"outputs": [new_output("stream", name="stdout", text="wrote /Users/me/x.png")]},
            "machine's path",
        ),
        (1, {"source": "# NBVAL_CHECK_OUTPUT\n1"}, "not there"),
        (4, {"source": "data in '/Users/me/data'"}, "machine's path"),
    ],
)
def test_each_wrong_shape_is_found(place, change, problem):
    notebook = right()
    for key, value in change.items():
        notebook.cells[place][key] = nbformat.from_dict(value)
    assert any(problem in line for line in problems(notebook)), problems(notebook)


def test_parameters_that_are_not_the_committed_ones_are_found():
    committed = {"PROFILE": "", "DATASET": "synthetic", "SEEDS": [0]}
    assert list(wrong_parameters(committed)) == []
    changed = {"PROFILE": "demo", "DATASET": "msmt17", "seeds": [0]}
    assert len(list(wrong_parameters(changed))) == 3


def test_parameters_that_are_not_resolved_are_found():
    notebook = right()
    assert len(list(unresolved(notebook, {"PROFILE": ""}))) == 1
    notebook.cells[3].source = "%matplotlib inline\n(PROFILE,) = resolve(PROFILE=PROFILE)"
    assert list(unresolved(notebook, {"PROFILE": ""})) == []
    assert len(list(unresolved(notebook, {"PROFILE": "", "SEEDS": [0]}))) == 1
