"""Notebook files: found, their parameters read and resolved, and what is committed of them."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from notebook_files import write

from fusionreid import notebooks, paths
from fusionreid.notebooks import NotebookError, resolve


def test_notebooks_are_found_in_order_and_picked_by_number_or_name(tmp_path):
    for name in ("10_last.ipynb", "00_first.ipynb", "03_train.ipynb", "draft.ipynb"):
        write(tmp_path, name)

    def stems(only=None):
        return [path.stem for path in notebooks.find(tmp_path, only)]

    assert stems() == ["00_first", "03_train", "10_last"]
    assert stems(["10", "03_train"]) == ["03_train", "10_last"]
    assert stems(["00_first.ipynb"]) == ["00_first"]
    with pytest.raises(NotebookError, match="--only 07.*00_first, 03_train, 10_last"):
        notebooks.find(tmp_path, ["07"])
    with pytest.raises(NotebookError, match="found none"):
        notebooks.find(tmp_path / "..")


def test_parameters_are_read_as_literals(tmp_path):
    source = '# which\nPROFILE = "demo"\nSEEDS = [\n    0, 1]\nRATE = -0.5'
    path = write(tmp_path, "00_a.ipynb", parameters=source)
    assert notebooks.parameters(path) == {"PROFILE": "demo", "SEEDS": [0, 1], "RATE": -0.5}


@pytest.mark.parametrize(
    "source",
    [
        "import os",
        "A = B = 1",
        "A, B = 1, 2",
        "A = open('x')",
        "A = [",
        "A: int = 1",
        "A = 1; A += 1",
    ],
)
def test_a_parameters_cell_with_more_than_literals_is_an_error(tmp_path, source):
    path = write(tmp_path, "00_a.ipynb", parameters=source)
    expected = "00_a.ipynb: its `parameters` cell must hold literals only"
    with pytest.raises(NotebookError, match=expected):
        notebooks.parameters(path)


def test_a_notebook_without_parameters_or_that_is_none_is_an_error(tmp_path):
    path = tmp_path / "00_a.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("A = 1")]), path)
    with pytest.raises(NotebookError, match="one cell tagged `parameters`, found 0"):
        notebooks.parameters(path)
    path.write_text('{"cells": [')
    with pytest.raises(NotebookError, match="00_a.ipynb: not a readable notebook"):
        notebooks.parameters(path)


@pytest.mark.parametrize(
    "variable, parameter, profile",
    [
        (None, "", "demo"),
        ("smoke", "", "smoke"),
        (None, "paper", "paper"),
        ("smoke", "paper", "paper"),
        ("smoke", "demo", "demo"),
        ("tiny", "smoke", "smoke"),
    ],
)
def test_a_profile_that_is_given_wins_over_the_environment(
    monkeypatch, variable, parameter, profile
):
    if variable:
        monkeypatch.setenv("FUSIONREID_PROFILE", variable)
    assert resolve(PROFILE=parameter) == [profile]


def test_an_unknown_profile_is_an_error_that_lists_the_known_ones(monkeypatch):
    known = "profile='tiny' is not known; it is one of: 'smoke', 'demo', 'paper'"
    with pytest.raises(ValueError, match=known):
        resolve(PROFILE="tiny")
    monkeypatch.setenv("FUSIONREID_PROFILE", "tiny")
    with pytest.raises(ValueError, match=known):
        resolve(PROFILE="")


@pytest.mark.parametrize(
    "name, value, resolved",
    [
        ("SEEDS", [0, 1], [0, 1]),
        ("SEEDS", (0, 1), [0, 1]),
        ("SEEDS", "0,1", [0, 1]),  # papermill -p SEEDS 0,1
        ("SEEDS", "(0, 1)", [0, 1]),  # papermill.execute_notebook(..., {"SEEDS": (0, 1)})
        ("SEEDS", "[2]", [2]),
        ("SEED", 3, 3),
        ("SEED", "3", 3),
        ("QUERIES", 1, 1),
        ("TOLERANCE", 0.5, 0.5),
        ("MODEL", "0123456789", "0123456789"),
        ("DATASET", "msmt17", "msmt17"),
        ("ANOTHER", (1, "x"), (1, "x")),
    ],
)
def test_a_parameter_arrives_as_the_cells_need_it(name, value, resolved):
    (found,) = resolve(**{name: value})
    assert found == resolved and type(found) is type(resolved)


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("SEEDS", 0, "SEEDS=0; expected a list of whole numbers, like [0]"),
        ("SEEDS", "0", "SEEDS=0; expected a list of whole numbers, like [0]"),
        ("SEEDS", [], "SEEDS=[]; expected a list of whole numbers, like [0]"),
        ("SEEDS", "[]", "SEEDS=[]; expected a list of whole numbers, like [0]"),
        ("SEEDS", "zero", "SEEDS='zero'; expected a list of whole numbers, like [0]"),
        ("SEEDS", [0, -1], "SEEDS=-1; expected a whole number from 0"),
        ("SEEDS", ["0"], "SEEDS='0'; expected a whole number from 0"),
        ("SEED", [0], "SEED=[0]; expected a whole number from 0"),
        ("QUERIES", 0, "QUERIES=0; expected a whole number from 1"),
        ("PEOPLE", 0, "PEOPLE=0; expected a whole number from 1"),
        ("PEOPLE", 2.5, "PEOPLE=2.5; expected a whole number from 1"),
        ("TRIED", True, "TRIED=True; expected a whole number from 1"),
        ("MEASURED", None, "MEASURED=None; expected a whole number from 1"),
        ("MAPPED", "many", "MAPPED='many'; expected a whole number from 1"),
        ("SHOWN", -1, "SHOWN=-1; expected a whole number from 1"),
        ("TOLERANCE", -0.1, "TOLERANCE=-0.1; expected a number from 0"),
        ("MODEL", 5, "MODEL=5; expected str"),
        ("DATASET", "cuhk03", "'cuhk03' is not known; it is one of"),
    ],
)
def test_a_parameter_of_a_wrong_kind_or_size_is_named(name, value, expected):
    with pytest.raises(ValueError) as error:
        resolve(**{name: value})
    assert expected in str(error.value)


def test_several_parameters_are_resolved_in_their_order():
    profile, seeds, queries = resolve(PROFILE="smoke", SEEDS=(1,), QUERIES=6)
    assert (profile, seeds, queries) == ("smoke", [1], 6)


def test_clean_drops_injected_cells_widgets_and_durations():
    widget = new_output(
        "display_data", data={"application/vnd.jupyter.widget-view+json": {"model_id": "x"}}
    )
    notebook = new_notebook(
        metadata={"papermill": {"input_path": "home/me/x.ipynb"}, "widgets": {}},
        cells=[
            new_code_cell("A = 1", metadata={"tags": ["parameters"]}, execution_count=4),
            new_code_cell("A = 2", metadata={"tags": ["injected-parameters"]}, execution_count=5),
            new_code_cell(
                "A", metadata={"papermill": {"duration": 1.0}}, execution_count=6, outputs=[widget]
            ),
        ],
    )
    notebooks.clean(notebook)
    left = [(cell.source, cell.execution_count, cell.outputs) for cell in notebook.cells]
    assert left == [("A = 1", 1, []), ("A", 2, [])]
    assert "home/me" not in nbformat.writes(notebook) and "duration" not in nbformat.writes(
        notebook
    )


def test_clean_takes_the_checkouts_folder_from_what_was_printed():
    printed = f"cnn: {paths.ROOT / 'fusionreid' / 'a.safetensors'}: 3 of 3\n"
    output = new_output("stream", name="stdout", text=printed)
    notebook = new_notebook(cells=[new_code_cell("A", outputs=[output])])
    notebooks.clean(notebook)
    left = notebook.cells[0].outputs[0].text
    assert left == f"cnn: {Path('fusionreid/a.safetensors')}: 3 of 3\n"
