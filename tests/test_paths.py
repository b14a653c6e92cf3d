"""Where things lie, and how the environment moves them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fusionreid import paths


def test_everything_lies_in_the_checkout():
    assert (paths.ROOT / "pyproject.toml").is_file()
    assert paths.PACKAGE == paths.ROOT / "fusionreid"
    assert paths.NOTEBOOKS.is_dir() and paths.FIGURES.is_dir()
    assert (paths.WEIGHTS / "demo.safetensors").is_file()
    assert (paths.PACKAGE / "paper" / "recorded.csv").is_file()


def moved(tmp_path, **variables):
    """The paths of a new process with these variables, run in another folder."""
    names = "ROOT", "DATA", "RUNS", "RECORDED", "NOTEBOOKS"
    # The module alone: the package around it imports torch.
    load = "import runpy, sys; paths = runpy.run_path(sys.argv[1])"
    show = f"print(*[paths[name] for name in {names}], sep='\\n')"
    kept = {name: value for name, value in os.environ.items() if "FUSIONREID" not in name}
    command = [sys.executable, "-c", f"{load}; {show}", paths.__file__]
    done = subprocess.run(
        command, env=kept | variables, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(names, map(Path, done.stdout.splitlines()), strict=True))


def test_paths_do_not_depend_on_the_current_folder(tmp_path):
    found = moved(tmp_path)
    assert found["ROOT"] == paths.ROOT
    assert found["DATA"] == paths.ROOT / "data"
    assert found["RUNS"] == paths.ROOT / "runs"
    assert found["RECORDED"] == paths.PACKAGE / "paper"


def test_variables_move_them(tmp_path):
    found = moved(
        tmp_path,
        FUSIONREID_ROOT="there",
        FUSIONREID_RUNS="~/runs",
        FUSIONREID_RECORDED=str(tmp_path / "rows"),
        HOME=str(tmp_path),
        USERPROFILE=str(tmp_path),  # on Windows
    )
    assert found["ROOT"] == tmp_path / "there"
    assert found["DATA"] == tmp_path / "there" / "data"
    assert found["NOTEBOOKS"] == tmp_path / "there" / "notebooks"
    assert found["RUNS"] == tmp_path / "runs"
    assert found["RECORDED"] == tmp_path / "rows"


def test_the_cache_lies_beside_the_data_sets(tmp_path, monkeypatch):
    monkeypatch.delenv("FUSIONREID_CACHE", raising=False)
    assert paths.cache(tmp_path) == tmp_path / "cache"
    assert paths.cache() == paths.DATA / "cache"
    monkeypatch.setenv("FUSIONREID_CACHE", str(tmp_path / "scratch"))
    assert paths.cache() == paths.cache(tmp_path / "data") == tmp_path / "scratch"


def test_figures_of_the_demo_alone_are_the_committed_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    assert paths.figures("demo") == tmp_path / "figures"
    assert paths.figures("smoke") == tmp_path / "runs" / "figures" / "smoke-synthetic"
    assert paths.figures("demo", "msmt17") == tmp_path / "runs" / "figures" / "demo-msmt17"
    assert (tmp_path / "runs" / "figures" / "demo-msmt17").is_dir()
