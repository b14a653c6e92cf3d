"""The numbers that the paper reports: Tables I to VI and Figs. 5 and 6, one CSV each.

Nothing is corrected. A cell that the paper leaves open is empty, and `note` says why. A note that
starts with "misprint" marks a number that the paper's other numbers contradict. One that starts
with "plotted" marks a number that the paper only draws, and that the authors published with their
code. One that starts with "lost" marks a number that could not be read, and where it was found.
"""

import pandas as pd

from .. import paths
from ..options import one_of

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
TITLES["differences"] = "The text and the code"  # no table of the paper: its CSV has no rows
ACCURACY = ("mAP", "rank-1")
COSTS = ("parameters", "FLOPs")


def table(name: str) -> pd.DataFrame:
    """One table of the paper, a row per method, data set and feature, as printed.

    Returns text columns, never NaN:
        `variant`, the name in `experiments.variants(name)`, empty for other people's methods;
        `method`, as printed; `backbone`; `pattern`; `overlap`, "yes", "no" or empty;
        `resolution`, like "256x128"; `dataset`; `feature`, where "all" is f_a;
        `counts`, what the costs count: "model", or "one HTM" in Tables III and IV; `note`.
    And numbers, NaN where the paper has none: `mAP` and `rank-1` in percent, `parameters` in
    millions, `FLOPs` in giga multiply-adds.

    Raises ValueError for a name that is not in `TITLES`.
    """
    one_of("table", name, TITLES)
    numbers = (*ACCURACY, *COSTS)
    return pd.read_csv(
        paths.PACKAGE / "paper" / f"{name}.csv",
        keep_default_na=False,
        na_values=dict.fromkeys(numbers, ""),
        dtype=dict.fromkeys(numbers, float),
    )


def accuracies(name: str, dataset: str) -> dict[tuple[str, str, str], float]:
    """What the paper reports of our variants on a data set, without its gaps.

    Returns {(variant, feature, metric): percent}; none of an experiment without a table.
    """
    rows = _our_rows(name)
    rows = rows[rows["dataset"] == dataset].set_index(["variant", "feature"])
    return rows[[*ACCURACY]].stack().dropna().to_dict()


def reported(name: str) -> dict[str, dict[str, float]]:
    """What the paper reports of each variant, of all its features on MSMT17, without its gaps.

    Returns {variant: {"mAP": percent, "rank-1": percent, "parameters": millions, "macs": giga}}.
    """
    rows = _our_rows(name).query("dataset == 'msmt17' and feature == 'all'").set_index("variant")
    rows = rows[[*ACCURACY, *COSTS]].rename(columns={"FLOPs": "macs"})
    return {variant: row.dropna().to_dict() for variant, row in rows.iterrows()}


def costs(name: str) -> pd.DataFrame:
    """A row per variant: `counts`, `parameters` (millions), `FLOPs` (giga), and all notes on it."""
    variants = _our_rows(name).groupby("variant", sort=False)
    notes = variants["note"].agg(lambda lines: "; ".join(filter(None, lines.unique())))
    return variants[["counts", *COSTS]].first().assign(note=notes)


def _our_rows(name: str) -> pd.DataFrame:
    """The rows that are variants of FusionReID."""
    rows = table(name)
    return rows[rows["variant"] != ""]
