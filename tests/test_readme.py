"""The README is right: its Python blocks run in order, and its commands and links exist."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fusionreid import paths
from fusionreid.config import FEATURES

README = (paths.ROOT / "README.md").read_text()


def blocks(language):
    """The fenced code blocks of a language, in order."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", README)


def test_python_blocks_run_in_order(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSIONREID_PROFILE", "smoke")
    # As from the repository's root, but with runs of its own.
    paths.DATA.mkdir(exist_ok=True)
    (tmp_path / "data").symlink_to(paths.DATA)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "readme"}
    for number, block in enumerate(blocks("python"), start=1):
        exec(compile(block, f"README.md, python block {number}", "exec"), names)
    assert list(names["output"].features) == list(FEATURES)
    assert set(names["rankings"]) == {*FEATURES, "all"}
    np.testing.assert_allclose(np.linalg.norm(names["vectors"], axis=1), np.ones(4), rtol=1e-5)
    assert not names["model"].training  # the demo's, by its name
    assert names["ranking"].num_valid == 50


def test_make_targets_exist():
    targets = set(re.findall(r"(?m)^([a-z]+):", (paths.ROOT / "Makefile").read_text()))
    named = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(blocks("(?:bash|sh|console|shell)"))))
    assert not named - targets, "README names make targets that are not there"


@pytest.mark.parametrize(
    "link", sorted(set(re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", README)))
)
def test_links_lead_to_files_of_the_repository(link):
    assert (paths.ROOT / link).exists(), f"README.md links to {link}, which is not there"
