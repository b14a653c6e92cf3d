"""The numbers that the paper reports: Tables I to VI and Figs. 5 and 6, one CSV each.

Nothing is corrected: a cell that the paper leaves open is empty, and `note` says why. A note that starts with
"misprint" marks a number that the paper's other numbers contradict; one that starts with "plotted" a number that the
paper only draws, and that the authors published with their code.
"""

from importlib.resources import files

import pandas as pd

from ..config import one_of

TITLES = {
    "table1": "Table I: comparison with the state of the art",
    "table2": "Table II: key components",
    "table3": "Table III: structures of the HTM",
    "table4": "Table IV: weight sharing in SEU and MFU",
    "table5": "Table V: pooling in DMF",
    "table6": "Table VI: backbones",
    "figure5": "Fig. 5: number of stacked HTMs",
    "figure6": "Fig. 6: fused dimension",
}
TABLES = tuple(TITLES)
_NUMBERS = ("mAP", "rank-1", "parameters", "FLOPs")


def table(name: str) -> pd.DataFrame:
    """One table of the paper (`TABLES`; else a ValueError), a row per method, data set and feature, as printed.

    Returns columns `variant` (the name in `experiments.variants(name)`; empty for other people's methods), `method` (as
    printed), `backbone`, `pattern`, `overlap` ("yes", "no" or empty), `resolution` ("256x128"), `dataset`, `feature`
    ("all" is f_a), `mAP` and `rank-1` (percent), `parameters` (millions), `FLOPs` (giga multiply-adds), `counts` (what
    the costs count: "model", or "one HTM" in Tables III and IV) and `note`. Numbers are floats, NaN where the paper has
    none; text is never NaN.
    """
    one_of("table", name, TABLES)
    with (files(__package__) / f"{name}.csv").open(encoding="utf-8") as file:
        empty = dict.fromkeys(_NUMBERS, [""])
        return pd.read_csv(
            file, keep_default_na=False, na_values=empty, dtype=dict.fromkeys(_NUMBERS, float)
        )


def accuracies(name: str, dataset: str) -> dict[tuple[str, str, str], float]:
    """What the paper reports of our variants on a data set: {(variant, feature, metric): percent}, without its gaps."""
    own = _ours(name)
    rows = own[own["dataset"] == dataset].set_index(["variant", "feature"])
    return rows[["mAP", "rank-1"]].stack().dropna().to_dict()


def costs(name: str) -> pd.DataFrame:
    """A row per variant: its `parameters` (millions) and `FLOPs` (giga), and the different notes on its numbers."""
    groups = _ours(name).groupby("variant", sort=False)
    notes = groups["note"].agg(lambda lines: "; ".join(filter(None, lines.unique())))
    return groups[["parameters", "FLOPs"]].first().assign(note=notes)


def _ours(name: str) -> pd.DataFrame:
    """The rows that are variants of FusionReID; none of an experiment that is no table of the paper."""
    frame = table(name) if name in TABLES else table(TABLES[0]).iloc[:0]
    return frame[frame["variant"] != ""]
