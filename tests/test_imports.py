"""The core imports where only the core's dependencies are installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fusionreid import paths

OPTIONAL = [
    "anny",
    "warp",
    "trimesh",
    "faiss",
    "pytorch_grad_cam",
    "submitit",
    "papermill",
    "nbformat",
    "nbclient",
    "ipywidgets",
    "anywidget",
    "IPython",
    "matplotlib",
    "seaborn",
    "jinja2",
    "pytest",
    "jaxtyping",
    "beartype",
]
DRAWING = "plots"  # the room that draws: matplotlib is its own
BLOCKED = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def modules():
    """Names of all modules of the package but those that draw, and what only `python -m` runs."""
    for path in sorted((paths.ROOT / "fusionreid").rglob("*.py")):
        parts = path.relative_to(paths.ROOT).with_suffix("").parts
        if DRAWING not in parts:
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def run(code):
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code], capture_output=True, text=True, cwd=paths.ROOT
    )


@pytest.mark.slow
def test_every_module_but_the_figures_imports_without_the_optional_packages():
    # One process for all: importing torch takes longer than all of them together.
    loop = "for name in names:\n    print(name, flush=True)\n    importlib.import_module(name)"
    result = run(f"import importlib\nnames = {list(modules())}\n{loop}")
    last = result.stdout.split()[-1] if result.stdout else "nothing"
    assert result.returncode == 0, f"while importing {last}:\n{result.stderr}"


@pytest.mark.parametrize("name", ["papermill", "matplotlib"])
def test_the_block_blocks(name):
    assert f"No module named {name!r}" in run(f"import {name}").stderr
