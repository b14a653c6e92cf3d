"""The headless run, tried on notebooks of two or three cells."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest
from notebook_files import write

from fusionreid import paths, processes, reproduce
from fusionreid.__main__ import main
from fusionreid.notebooks import NotebookError, resolve


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in place of the repository's notebooks; its runs lie beside it."""
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


def test_only_values_that_differ_are_injected(folder):
    first, second = write(folder, "00_a.ipynb"), write(folder, "01_b.ipynb", parameters="TOP = 5")
    assert reproduce.plan([first, second], "demo", "synthetic", {}) == {
        first: {"PROFILE": "demo"},
        second: {},
    }
    assert reproduce.plan([first, second], "smoke", "msmt17", {"TOP": 7, "SEEDS": (0,)}) == {
        first: {"PROFILE": "smoke", "DATASET": "msmt17"},
        second: {"TOP": 7},
    }


def test_unknown_names_of_parameters_are_errors(folder):
    first, second = write(folder, "00_a.ipynb"), write(folder, "01_b.ipynb", parameters="TOP = 5")
    known = "-p: parameter='SEED' is not known; it is one of: 'PROFILE', 'DATASET', 'SEEDS', 'TOP'"
    with pytest.raises(ValueError, match=known):
        reproduce.plan([first, second], "demo", "synthetic", {"SEED": 1})
    with pytest.raises(ValueError, match="use the option --profile"):
        reproduce.plan([first], "demo", "synthetic", {"PROFILE": "smoke"})


def test_notebooks_run_in_this_interpreter_with_the_values(folder, capsys, monkeypatch):
    show = "import os, sys\nprint(PROFILE, SEEDS, os.getcwd(), sys.executable)"
    before = write(folder, "00_a.ipynb", show).read_text()
    monkeypatch.setenv("FUSIONREID_PROFILE", "paper")
    rows = reproduce.reproduce("smoke", given={"SEEDS": [1, 2]})
    assert os.environ["FUSIONREID_PROFILE"] == "paper"
    executed = paths.RUNS / "notebooks" / "smoke-synthetic" / "00_a.ipynb"
    assert text(executed).split() == ["smoke", "[1,", "2]", str(folder), sys.executable]
    assert (folder / "00_a.ipynb").read_text() == before
    assert [row["notebook"] for row in rows] == ["00_a"]
    assert 0 < rows[0]["seconds"] < 120
    assert re.search(r"all +0 min \d\d s", capsys.readouterr().out)


def test_what_papermill_injects_is_resolved_in_the_notebook(monkeypatch):
    """Papermill passes a tuple as text; its value of PROFILE wins over the environment."""
    from papermill.translators import PythonTranslator

    injected = {}
    exec(PythonTranslator.codify({"PROFILE": "smoke", "SEEDS": (0, 1)}), injected)
    assert injected["SEEDS"] == "(0, 1)"
    monkeypatch.setenv("FUSIONREID_PROFILE", "demo")
    resolved = resolve(PROFILE=injected["PROFILE"], SEEDS=injected["SEEDS"])
    assert resolved == ["smoke", [0, 1]]


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("SEEDS", "0", "SEEDS=0; expected a list of whole numbers, like [0]"),
        ("SEEDS", "[]", "SEEDS=[]; expected a list of whole numbers, like [0]"),
        ("QUERIES", "0", "QUERIES=0; expected a whole number from 1"),
        ("PEOPLE", "0", "PEOPLE=0; expected a whole number from 1"),
    ],
)
def test_a_wrong_parameter_is_named_before_anything_runs(folder, capsys, name, value, expected):
    write(folder, "00_a.ipynb", parameters="SEEDS = [0]\nQUERIES = 6\nPEOPLE = 3")
    assert main(["reproduce", "-p", name, value]) == 2
    assert capsys.readouterr().err == f"fusionreid: {expected}\n"
    assert not paths.RUNS.exists()


def test_seeds_may_be_written_without_brackets(folder, monkeypatch):
    write(folder, "00_a.ipynb")
    asked = []
    monkeypatch.setattr(reproduce, "execute", lambda *arguments: asked.append(arguments[2]) or 0.0)
    assert main(["reproduce", "--profile", "smoke", "-p", "SEEDS", "0,1"]) == 0
    assert asked == [{"PROFILE": "smoke", "SEEDS": [0, 1]}]


@pytest.mark.parametrize("count, threads", [(1, None), (2, "2")])
def test_notebooks_that_run_at_once_share_the_cores(folder, monkeypatch, count, threads):
    for number in range(count):
        write(folder, f"0{number}_a.ipynb")
    asked = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(reproduce, "cores", lambda: 4)
    monkeypatch.setattr(
        reproduce, "execute", lambda *_: asked.append(os.environ.get("OMP_NUM_THREADS")) or 0.0
    )
    reproduce.reproduce("smoke")
    assert asked == [threads] * count
    assert "OMP_NUM_THREADS" not in os.environ, "it is for the kernels alone"


@pytest.mark.slow
@pytest.mark.skipif(processes.cores() < 2, reason="two notebooks at once need two cores")
def test_two_notebooks_run_at_once_and_the_summary_waits_for_all_others(folder):
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
    there = "import pathlib\nprint(pathlib.Path('d').exists(), pathlib.Path('e').exists())"
    write(folder, "12_summary.ipynb", there)
    write(folder, "14_c.ipynb", "import pathlib, time\ntime.sleep(1)\npathlib.Path('e').touch()")
    rows = reproduce.reproduce("smoke")
    assert {row["notebook"] for row in rows[:2]} == {"00_a", "01_b"}
    assert rows[-1]["notebook"] == "12_summary"
    summary = paths.RUNS / "notebooks" / "smoke-synthetic" / "12_summary.ipynb"
    assert text(summary) == "True True\n"


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
        (["-p", "SEED", "1"], 2, "-p: parameter='SEED' is not known"),
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
    with pytest.raises(NotebookError, match="notebooks: expected notebooks .* clone it"):
        reproduce.reproduce("smoke")


def test_update_writes_outputs_back_without_traces_of_the_machine(folder):
    noise = "print('noise', file=sys.stderr, flush=True)"
    source = f"import sys\nprint('a', flush=True)\n{noise}\nprint('b')\n3"
    path = write(folder, "00_a.ipynb", source)
    ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    reproduce.reproduce("demo", overwrite=True)
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


@pytest.mark.slow
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
