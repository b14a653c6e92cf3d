"""The order of the rooms: imports go down only and never in a circle, and files and the package stay small."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from fusionreid import paths

PACKAGE = paths.ROOT / "fusionreid"
MOST_LINES, MOST_LINES_IN_ALL = 300, 9150
# A file may import from its own line and from those above it.
ROOMS = [
    ["files", "paths", "processes", "devices", "config", "options"],
    ["models"],
    ["data"],
    ["training"],
    ["evaluation"],
    ["paper"],
    ["plots"],
    ["jobs"],
    ["pretrain"],
    ["reproduce", "notebooks"],
    ["__init__", "__main__"],
]
FLOOR = {name: floor for floor, names in enumerate(ROOMS) for name in names}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(file: Path, package: Path) -> set[Path]:
    """The files of the package that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            start = file.parents[node.level - 1] if node.level else package.parent
            module = start.joinpath(*(node.module or "").split("."))
            targets = [module / each.name for each in node.names]
            found |= {_file(target) or _file(module) for target in targets}
        elif isinstance(node, ast.Import):
            found |= {_file(package.parent.joinpath(*each.name.split("."))) for each in node.names}
    return found - {None, file}


def _file(module: Path) -> Path | None:
    """The file of a module or of a package."""
    return next((each for each in (module.with_suffix(".py"), module / "__init__.py") if each.is_file()), None)


def room(file: Path, package: Path) -> str:
    return file.relative_to(package).parts[0].removesuffix(".py")


def upward(file: Path, package: Path) -> list[str]:
    """The imports of a file that go up."""
    floor = FLOOR[room(file, package)]
    return [str(each.relative_to(package)) for each in imports(file, package) if FLOOR[room(each, package)] > floor]


def circle(package: Path) -> list[str]:
    """Files that import each other in a circle, none if there is no circle."""
    try:
        TopologicalSorter({file: imports(file, package) for file in package.rglob("*.py")}).prepare()
    except CycleError as error:
        return [str(file.relative_to(package)) for file in error.args[1]]
    return []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down_and_the_file_is_small(file):
    assert room(file, PACKAGE) in FLOOR, f"{file} is in no room of {ROOMS}"
    assert not upward(file, PACKAGE)
    assert len(file.read_text().splitlines()) <= MOST_LINES


def test_nothing_is_imported_in_a_circle():
    assert not circle(PACKAGE)


def test_the_package_is_small():
    assert sum(len(file.read_text().splitlines()) for file in FILES) <= MOST_LINES_IN_ALL


def test_wrong_imports_are_found(tmp_path):
    for name, text in {
        "config.py": "",
        "data/__init__.py": "from .sampler import a",
        "data/sampler.py": "def late():\n    from ..paper import numbers",
        "models/fusion.py": "import fusionreid.config\nfrom . import cost",
        "models/cost.py": "from .fusion import b",
        "paper/numbers.py": "from fusionreid.data import a",
    }.items():
        file = tmp_path / "fusionreid" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    package = tmp_path / "fusionreid"
    assert upward(package / "data" / "sampler.py", package) == ["paper/numbers.py"]
    assert upward(package / "models" / "fusion.py", package) == []
    assert upward(package / "paper" / "numbers.py", package) == []
    assert len(circle(package)) > 2
