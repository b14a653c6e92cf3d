"""A rendered set of twenty pictures, for all tests of the renderer and of what it writes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fusionreid.data.synthetic.build import SIZES, build


@pytest.fixture(scope="session")
def tiny():
    """The size of the set: two people to train on, one to test."""
    return replace(SIZES["smoke"], train=2, test=1, cameras=(3, 3), images=(2, 2), distractors=2)


@pytest.fixture(scope="session")
def rendered(tiny, tmp_path_factory):
    """The folder of the set, `<root>/synthetic/smoke-3`, rendered by one process."""
    pytest.importorskip("anny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "smoke", tiny)
        return build(tmp_path_factory.mktemp("tiny"), "smoke", 3, processes=1, progress=False)
