"""Small notebooks for tests: a question, a parameters cell, and some cells of code."""

from __future__ import annotations

from nbformat import write as write_file
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = 'PROFILE = ""\nDATASET = "synthetic"\nSEEDS = [0]'


def write(folder, name, *sources, parameters=PARAMETERS):
    """Writes a notebook with one code cell for each source, and returns its path."""
    cells = [
        new_markdown_cell("# Does it run?"),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
    ]
    cells += [new_code_cell(source) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    write_file(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / name)
    return folder / name
