"""The headless run, tried on notebooks of two or three cells."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fusionreid import notebooks, paths, processes, reproduce
from fusionreid.__main__ import main
from fusionreid.notebooks import NotebookError

PARAMETERS = 'PROFILE = "demo"\nDATASET = "synthetic"\nSEEDS = [0]'


def write(folder, name, *sources, parameters=PARAMETERS):
    """A notebook of a question, a parameters cell and one code cell for each source."""
    cells = [
        new_markdown_cell("# Does it run?"),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
    ]
    cells += [new_code_cell(source) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / name)
    return folder / name


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty notebooks folder that reproduce takes for the repository's; its runs lie beside it."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setenv(
        "JUPYTER_PATH", os.environ.get("JUPYTER_PATH", "")
    )  # put back after the test
    return tmp_path / "notebooks"


def text(path):
    """All that the cells of a notebook printed."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return "".join(output.get("text", "") for cell in cells for output in cell.outputs)


def test_notebooks_are_found_in_order_and_picked_by_number_or_name(folder):
    for name in ("10_last.ipynb", "00_first.ipynb", "03_train.ipynb", "draft.ipynb"):
        write(folder, name)
    assert [path.stem for path in notebooks.find(folder)] == ["00_first", "03_train", "10_last"]
    assert [path.stem for path in notebooks.find(folder, ["10", "03_train"])] == [
        "03_train",
        "10_last",
    ]
    assert [path.stem for path in notebooks.find(folder, ["00_first.ipynb"])] == ["00_first"]
    with pytest.raises(NotebookError, match="--only 07.*00_first, 03_train, 10_last"):
        notebooks.find(folder, ["07"])
    with pytest.raises(NotebookError, match="found none"):
        notebooks.find(folder / "..")


def test_parameters_are_read_as_literals(folder):
    source = '# which\nPROFILE = "demo"\nSEEDS: list[int] = [\n    0, 1]\nRATE = -0.5'
    path = write(folder, "00_a.ipynb", parameters=source)
    assert notebooks.parameters(path) == {"PROFILE": "demo", "SEEDS": [0, 1], "RATE": -0.5}


def test_the_environment_wins_over_the_committed_profile_alone(monkeypatch):
    assert notebooks.chosen("demo").name == "demo"
    monkeypatch.setenv("FUSIONREID_PROFILE", "smoke")
    assert notebooks.chosen("demo").name == "smoke"
    assert notebooks.chosen("paper").name == "paper"
    monkeypatch.setenv("FUSIONREID_PROFILE", "tiny")
    with pytest.raises(ValueError, match="'tiny' is not known"):
        notebooks.chosen("demo")


@pytest.mark.parametrize(
    "source",
    ["import os", "A = B = 1", "A, B = 1, 2", "A = open('x')", "A = [", "A: int", "A = 1; A += 1"],
)
def test_a_parameters_cell_with_more_than_literals_is_an_error(folder, source):
    with pytest.raises(
        NotebookError, match="00_a.ipynb: its `parameters` cell must hold literals only"
    ):
        notebooks.parameters(write(folder, "00_a.ipynb", parameters=source))


def test_a_notebook_without_parameters_or_that_is_none_is_an_error(folder):
    nbformat.write(new_notebook(cells=[new_code_cell("A = 1")]), folder / "00_a.ipynb")
    with pytest.raises(NotebookError, match="one cell tagged `parameters`, found 0"):
        notebooks.parameters(folder / "00_a.ipynb")
    (folder / "00_a.ipynb").write_text('{"cells": [')
    with pytest.raises(NotebookError, match="00_a.ipynb: not a readable notebook"):
        notebooks.parameters(folder / "00_a.ipynb")


def test_only_values_that_differ_are_injected_and_unknown_names_are_errors(folder):
    first, second = write(folder, "00_a.ipynb"), write(folder, "01_b.ipynb", parameters="TOP = 5")
    usual = {"PROFILE": "demo", "DATASET": "synthetic"}
    assert reproduce.plan([first, second], {}, usual) == {first: {}, second: {}}
    assert reproduce.plan([first, second], {"TOP": 7}, {**usual, "PROFILE": "smoke"}) == {
        first: {"PROFILE": "smoke"},
        second: {"TOP": 7},
    }
    with pytest.raises(
        NotebookError, match=r"(?s)-p SEED: no selected.*00_a: PROFILE, DATASET, SEEDS.*01_b: TOP"
    ):
        reproduce.plan([first, second], {"SEED": 1}, usual)
    with pytest.raises(NotebookError, match="use the option --profile"):
        reproduce.plan([first], {"PROFILE": "smoke"}, usual)


def test_notebooks_run_in_this_interpreter_with_the_profile_and_the_values(
    folder, capsys, monkeypatch
):
    show = "import os, sys\nprint(PROFILE, SEEDS, os.environ['FUSIONREID_PROFILE'], os.getcwd(), sys.executable)"
    before = write(folder, "00_a.ipynb", show).read_text()
    monkeypatch.delenv("FUSIONREID_PROFILE", raising=False)
    rows = reproduce.reproduce("smoke", given={"SEEDS": [1, 2]}, progress=False)
    assert "FUSIONREID_PROFILE" not in os.environ
    executed = paths.RUNS / "notebooks" / "smoke-synthetic" / "00_a.ipynb"
    assert text(executed).split() == ["smoke", "[1,", "2]", "smoke", str(folder), sys.executable]
    assert (folder / "00_a.ipynb").read_text() == before
    assert [row["notebook"] for row in rows] == ["00_a"]
    assert 0 < rows[0]["seconds"] < 120
    assert float(re.search(r"all .* peak ([\d.]+) GiB", capsys.readouterr().out)[1]) > 0.1


@pytest.mark.skipif(processes.cores() < 2, reason="two notebooks at once need two cores")
def test_two_notebooks_run_at_once_and_the_summary_waits_for_those_before_it(folder):
    wait = (
        "import pathlib, time\nend = time.monotonic() + 120\npathlib.Path({own!r}).touch()\n"
        "while not pathlib.Path({other!r}).exists(): assert time.monotonic() < end; time.sleep(0.1)"
    )
    write(folder, "00_a.ipynb", wait.format(own="a", other="b"), "pathlib.Path('a').rename('c')")
    write(
        folder,
        "01_b.ipynb",
        wait.format(own="b", other="c"),
        "time.sleep(1)\npathlib.Path('d').touch()",
    )
    write(folder, "12_summary.ipynb", "import pathlib\nprint(pathlib.Path('d').exists())")
    write(folder, "14_c.ipynb")
    rows = reproduce.reproduce("smoke", progress=False)
    assert {row["notebook"] for row in rows[:2]} == {"00_a", "01_b"}
    assert text(paths.RUNS / "notebooks" / "smoke-synthetic" / "12_summary.ipynb") == "True\n"


def test_a_failing_notebook_stops_all_with_the_cell_and_the_error(folder, capsys):
    write(
        folder,
        "00_a.ipynb",
        "print('before')",
        "wrong = 1\nassert wrong == 2, 'not what was expected'",
    )
    write(
        folder,
        "01_b.ipynb",
        "import os, pathlib\npathlib.Path('b').write_text(str(os.getpid()))",
        "while True: pass",
    )
    write(folder, "02_c.ipynb", "print('never')")
    assert main(["reproduce", "--profile", "smoke"]) == 1
    error = capsys.readouterr().err
    assert (
        "00_a.ipynb failed in cell 4 (In [4])" in error
    )  # a cell more than committed: the injected parameters
    assert "    assert wrong == 2" in error and "AssertionError: not what was expected" in error
    copies = paths.RUNS / "notebooks" / "smoke-synthetic"
    assert "before" in text(copies / "00_a.ipynb")
    assert not (copies / "02_c.ipynb").exists()
    other = folder / "b"
    wait_for(lambda: not other.exists() or not psutil.pid_exists(int(other.read_text())))


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["--only", "9"], 1, "--only 9: no such notebook; there are: 00_a"),
        (["-p", "SEED", "1"], 1, "-p SEED: no selected notebook has this parameter"),
        (
            ["--profile", "smoke", "--update"],
            1,
            "--update: committed outputs are those of the demo profile",
        ),
    ],
)
def test_a_wrong_argument_is_explained_before_anything_runs(
    folder, capsys, arguments, code, message
):
    write(folder, "00_a.ipynb")
    assert main(["reproduce", *arguments]) == code
    assert message in capsys.readouterr().err
    assert not paths.RUNS.exists()


def test_an_installed_package_says_that_it_needs_a_checkout(folder):
    folder.rmdir()
    with pytest.raises(NotebookError, match="notebooks: no such folder; .* clone it"):
        reproduce.reproduce("smoke")


def test_update_writes_outputs_back_without_traces_of_the_machine(folder):
    source = "import sys\nprint('a', flush=True)\nprint('noise', file=sys.stderr, flush=True)\nprint('b')\n3"
    path = write(folder, "00_a.ipynb", source)
    ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    reproduce.reproduce("demo", overwrite=True, progress=False)
    notebook = nbformat.read(path, as_version=4)
    assert [cell.id for cell in notebook.cells] == ids
    stream, result = notebook.cells[2].outputs
    assert (stream.name, stream.text) == ("stdout", "a\nb\n")
    assert (result.data["text/plain"], result.execution_count) == ("3", 2)
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert (
        notebook.cells[1].metadata == {"tags": ["parameters"]} and notebook.cells[2].metadata == {}
    )
    assert str(folder.parent) not in path.read_text()


def test_clean_drops_injected_cells_widgets_and_durations():
    widget = new_output(
        "display_data", data={"application/vnd.jupyter.widget-view+json": {"model_id": "x"}}
    )
    notebook = new_notebook(
        metadata={"papermill": {"input_path": "/Users/me/x.ipynb"}, "widgets": {}},
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
    assert "/Users" not in nbformat.writes(notebook) and "duration" not in nbformat.writes(notebook)


def test_clean_takes_the_checkouts_folder_from_what_was_printed():
    printed = new_output(
        "stream",
        name="stdout",
        text=f"cnn: {paths.ROOT / 'fusionreid' / 'a.safetensors'}: 3 of 3\n",
    )
    notebook = new_notebook(cells=[new_code_cell("A", outputs=[printed])])
    notebooks.clean(notebook)
    assert notebook.cells[0].outputs[0].text == f"cnn: {Path('fusionreid/a.safetensors')}: 3 of 3\n"


def test_a_runs_folder_that_cannot_be_written_is_named(folder, capsys):
    write(folder, "00_a.ipynb")
    paths.RUNS.write_text("a file where a folder should be")
    assert main(["reproduce", "--profile", "smoke"]) == 1
    assert str(paths.RUNS) in capsys.readouterr().err


def test_a_full_disk_names_the_notebook_that_did_not_fit(folder, capsys, monkeypatch):
    import papermill

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    write(folder, "00_a.ipynb")
    monkeypatch.setattr(papermill, "execute_notebook", full)
    assert main(["reproduce", "--profile", "smoke"]) == 1
    assert re.search(
        r"00_a\.ipynb: cannot write: No space left on device; .* same command",
        capsys.readouterr().err,
    )


def test_a_kernel_that_dies_is_told_apart_from_a_cell_that_fails(folder, capsys):
    write(folder, "00_a.ipynb", "import os\nos.write(2, b'out of luck')\nos._exit(1)")
    assert main(["reproduce", "--profile", "smoke"]) == 1
    assert "00_a.ipynb: the kernel died" in capsys.readouterr().err
    log = paths.RUNS / "notebooks" / "smoke-synthetic" / "00_a.log"
    assert "out of luck" in log.read_text()


def test_control_c_ends_the_kernel_and_says_how_to_go_on(folder, tmp_path):
    started = tmp_path / "started"
    show = f"import os, pathlib, time\npathlib.Path({str(started)!r}).write_text(str(os.getpid()))"
    write(folder, "00_a.ipynb", show, "time.sleep(600)")
    process = subprocess.Popen(
        [sys.executable, "-m", "fusionreid", "reproduce", "--profile", "smoke"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=paths.ROOT,
        env={
            **os.environ,
            "FUSIONREID_ROOT": str(tmp_path),
            "FUSIONREID_RUNS": str(tmp_path / "runs"),
        },
    )
    wait_for(lambda: process.poll() is not None or started.exists() and started.read_text())
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Interrupted. Finished runs are kept" in error and "Traceback" not in error
    wait_for(lambda: not psutil.pid_exists(int(started.read_text())))


def wait_for(condition, seconds=180):
    """Returns when the condition holds; fails when it does not within the time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
