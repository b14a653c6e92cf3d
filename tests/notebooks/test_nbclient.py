"""Every notebook by nbclient alone, checked as nbval checks it. `make test-nbclient` runs it."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
CHECKED = "# NBVAL_CHECK_OUTPUT"


def shown(cell) -> dict[str, str]:
    """What a cell shows that is compared: what it printed, and results as text, by kind."""
    texts = {}
    for output in cell.outputs:
        if output.output_type == "stream":
            found = {output.name: output.text}
        else:
            found = output.get("data", {})
        for kind in ("stdout", "text/plain", "text/html"):
            texts[kind] = texts.get(kind, "") + found.get(kind, "")
    return texts


def differences(stored, executed) -> list[str]:
    """The checked cells of a notebook whose output is not the stored one."""
    found = []
    for old, new in zip(stored.cells, executed.cells, strict=True):
        if CHECKED in old.source and shown(old) != shown(new):
            found.append(f"{old.source}\nexpected {shown(old)}\nfound    {shown(new)}")
    return found


def notebook(*outputs: str):
    """A notebook with a checked cell that has printed something, and one that is not checked."""
    printed = [new_output("stream", name="stdout", text=text) for text in outputs]
    cells = [new_code_cell(CHECKED, outputs=printed), new_code_cell("", outputs=printed)]
    return new_notebook(cells=cells)


def test_checked_outputs_are_compared():
    assert not differences(notebook("one\ntwo\n"), notebook("one\n", "two\n"))
    (line,) = differences(notebook("one\n"), notebook("two\n"))
    assert "expected {'stdout': 'one" in line


@pytest.mark.skipif(
    not os.environ.get("FUSIONREID_NBCLIENT"), reason="`make test-nbclient` asks for it"
)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_passes_without_nbval(path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("FUSIONREID_PROFILE", "smoke")
    stored = nbformat.read(path, as_version=4)
    executed = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(executed, kernel_name="python3", timeout=1800, resources=resources).execute()
    assert not differences(stored, executed)
