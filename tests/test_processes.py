"""How many cores there are, and how many a reader allows."""

from __future__ import annotations

import pytest

from fusionreid.processes import cores


def test_the_environment_lowers_the_number_of_cores_and_never_raises_it(monkeypatch):
    monkeypatch.delenv("FUSIONREID_CORES", raising=False)
    there = cores()
    for asked, expected in [("1", 1), ("", there), (str(there), there), (str(there + 1), there)]:
        monkeypatch.setenv("FUSIONREID_CORES", asked)
        assert cores() == expected


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_of_cores_names_the_variable(monkeypatch, wrong):
    monkeypatch.setenv("FUSIONREID_CORES", wrong)
    with pytest.raises(
        ValueError, match=f"FUSIONREID_CORES: expected a number of cores, found '{wrong}'"
    ):
        cores()
