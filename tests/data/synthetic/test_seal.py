"""The renderer is sealed: outside its folder, only `build` and the version of the people are
imported.
"""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path

import pytest

from fusionreid import paths
from fusionreid.data import synthetic

RENDERER = "fusionreid.data.synthetic"
OPEN = {f"{RENDERER}.{name}" for name in ("RENDERER", "build", "build.build", "build.SIZES")}


def code(file: Path) -> str:
    """The Python of a module, or of a notebook's code cells without their magic lines."""
    if file.suffix == ".py":
        return file.read_text(encoding="utf-8")
    lines = []
    for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            lines += "".join(cell["source"]).splitlines()
    return "\n".join(line for line in lines if not line.startswith(("%", "!")))


def imported(source: str, module: str) -> set[str]:
    """The full names of all that the code of `module` imports, and of modules that it names in a
    string.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            start = ".".join([*package, *([node.module] if node.module else [])])
            names |= {f"{start}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)  # as in `importlib.import_module("fusionreid.data...")`
    return names


def violations(source: str, module: str) -> set[str]:
    """What of the renderer is imported that is not open to everybody."""
    inside = {name for name in imported(source, module) if name.startswith(f"{RENDERER}.")}
    return inside - OPEN


def outside_files() -> list[Path]:
    files = []
    for folder in ("fusionreid", "notebooks", "benchmarks", "tests"):
        for suffix in ("*.py", "*.ipynb"):
            files += (paths.ROOT / folder).rglob(suffix)
    own = (paths.ROOT / "fusionreid/data/synthetic", paths.ROOT / "tests/data/synthetic")
    return sorted(file for file in files if not any(file.is_relative_to(each) for each in own))


@pytest.mark.parametrize(
    "file", outside_files(), ids=lambda file: str(file.relative_to(paths.ROOT))
)
def test_nobody_imports_more_than_build(file):
    module = ".".join(file.relative_to(paths.ROOT).with_suffix("").parts)
    assert violations(code(file), module) == set()


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("notebooks.00_data", "from fusionreid.data.synthetic.people import draw"),
        ("notebooks.00_data", "import fusionreid.data.synthetic.people"),
        ("fusionreid.data.truth", "from .synthetic.people import draw"),
        ("fusionreid.data.truth", "from .synthetic import people"),
        ("fusionreid.plots.grids", "from ..data.synthetic.build import draw"),
        ("tests.test_x", "def test():\n    from fusionreid.data.synthetic import *"),
        ("tests.test_x", "pytest.importorskip('fusionreid.data.synthetic.body')"),
    ],
)
def test_a_planted_import_is_seen(module, planted):
    assert len(violations(planted, module)) == 1


@pytest.mark.parametrize(
    "allowed",
    [
        "from fusionreid.data.synthetic import RENDERER, build",
        "from fusionreid.data.synthetic.build import SIZES, build",
        "from fusionreid.data import synthetic",
    ],
)
def test_build_and_the_version_are_open(allowed):
    assert violations(allowed, "tests.test_x") == set()


# Of the code that made the pictures of this version. Runs are told apart by the version alone.
SOURCE_OF_VERSION = {6: "95549439345b"}


def test_a_changed_renderer_has_a_new_version():
    """If the same seed still gives the same pictures, write the new digest down; else, raise it."""
    digest = hashlib.sha256()
    for file in sorted((paths.PACKAGE / "data/synthetic").glob("*.py")):
        digest.update(file.read_text(encoding="utf-8").encode())
    assert SOURCE_OF_VERSION == {synthetic.RENDERER: digest.hexdigest()[:12]}
