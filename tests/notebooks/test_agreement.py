"""The committed notebooks agree: the same model has the same numbers wherever it stands."""

from __future__ import annotations

import pandas as pd
import pytest

from fusionreid import paths

# The full model, as each notebook's table calls it, and other rows that two tables share.
SAME = {
    "the full model": {
        "04_table1": "FusionReID*",
        "05_components": "FusionReID*",
        "06_structures": "SEU, MFU",
        "06_sharing": "SEU shared, MFU unshared",
        "07_pooling": "GeM",
        "08_htm_depth": "L = 2",
        "09_fusion_dimension": "D = 768",
        "14_differences": "PAPER",
    },
    "SEU alone": {"05_components": "DFE + LRU + SEU", "06_structures": "SEU only"},
    "MFU alone": {"05_components": "DFE + LRU + MFU", "06_structures": "MFU only"},
    "one SEU for each branch": {
        "06_sharing": "SEU unshared, MFU unshared",
        "14_differences": "one SEU for each branch",
    },
}


@pytest.mark.parametrize("rows", SAME.values(), ids=SAME)
def test_a_model_has_one_number(rows):
    accuracies = {}
    for name, row in rows.items():
        table = pd.read_csv(paths.FIGURES / f"{name}.csv", index_col=0)
        ours = table.filter(regex=r"^(Recorded|Own run).*: (mAP|rank-1)$").loc[row]
        assert ours.filter(like="Own run").notna().all(), f"{name}: {row}"
        accuracies[name] = ours
    accuracies = pd.DataFrame(accuracies)
    first = accuracies.iloc[:, 0]
    assert accuracies.sub(first, axis=0).abs().max(axis=None) < 1e-3, accuracies.to_string()
    assert accuracies.isna().sum(axis=1).isin([0, len(rows)]).all(), accuracies.to_string()
