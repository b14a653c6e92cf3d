"""The numbers that the paper reports: Tables I to VI, and what its text states of Figs. 5 and 6.

One CSV a table, typed from the paper. Nothing is corrected and nothing is filled in: a cell that the paper leaves
open, plots without printing, or that is not legible is empty, and `note` says which. A note that starts with
"misprint" marks a printed number that the paper's other numbers contradict; the printed number stands.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import pandas as pd

TABLES = ("table1", "table2", "table3", "table4", "table5", "table6", "figure5", "figure6")
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
_TEXT = ("variant", "method", "backbone", "pattern", "overlap", "resolution", "dataset", "feature", "counts", "note")


@cache
def _read(name: str) -> pd.DataFrame:
    with (files(__package__) / f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, keep_default_na=False)


def table(name: str) -> pd.DataFrame:
    """One table of the paper, a row per method, data set and feature, in the paper's order.

    Args:
        name: "table1" to "table6", "figure5" or "figure6".

    Returns:
        Columns `variant` (the name in `experiments.variants(name)`; empty for other people's methods), `method` (as
        printed), `backbone`, `pattern`, `overlap` ("yes", "no" or empty), `resolution` ("256x128"), `dataset`,
        `feature` ("all" is f_a), `mAP` and `rank-1` (percent), `parameters` (millions), `FLOPs` (giga multiply-adds),
        `counts` (what the costs count: "model", or "one HTM" in Tables III and IV) and `note`. Numbers are floats, NaN
        where the paper has none; text is never NaN.

    Raises:
        ValueError: `name` is not one of them.
    """
    if name not in TABLES:
        raise ValueError(f"paper table {name!r} is not known; it is one of: {', '.join(TABLES)}")
    frame = _read(name).copy()
    for column in ("mAP", "rank-1", "parameters", "FLOPs"):
        frame[column] = pd.to_numeric(frame[column])
    for column in _TEXT:
        frame[column] = frame[column].astype(str)
    return frame


def statements() -> pd.DataFrame:
    """The differences that the text states in words, a row each.

    Returns:
        Columns `statement`, `table`, `row` and `base` (variants, or methods where other people's), `row_feature`,
        `base_feature`, `mAP` and `rank-1` (row less base, in points, as stated) and `note`.
    """
    return _read("statements").copy()


def reported(name: str) -> dict[str, dict[str, float]]:
    """What the paper reports of each variant: {variant: {key: number}}, without what it does not print.

    A key is a metric, with what it is of in front where that is not the whole model on MSMT17: "mAP", "rank-1"
    (percent), "parameters" (millions), "macs" (giga); "cnn_fused/mAP" in Table VI and Fig. 5; "market1501/mAP" in
    Table I, which has three data sets; "htm/parameters" in Tables III and IV, which count one HTM.
    """
    found: dict[str, dict[str, float]] = {}
    for row in table(name).to_dict("records"):
        if not row["variant"]:
            continue
        numbers = found.setdefault(row["variant"], {})
        accuracy = f"{row['dataset']}/" if name == "table1" else "" if row["feature"] == "all" else f"{row['feature']}/"
        cost = "htm/" if row["counts"] == "one HTM" else ""
        entries = {
            f"{accuracy}mAP": row["mAP"],
            f"{accuracy}rank-1": row["rank-1"],
            f"{cost}parameters": row["parameters"],
            f"{cost}macs": row["FLOPs"],
        }
        numbers.update({key: value for key, value in entries.items() if not pd.isna(value)})
    return found


def notes(name: str) -> dict[str, str]:
    """The notes on each variant's numbers, joined: {variant: note}, "" where there is none."""
    found: dict[str, list[str]] = {}
    for row in table(name).to_dict("records"):
        if row["variant"]:
            lines = found.setdefault(row["variant"], [])
            lines.extend(note for note in [row["note"]] if note and note not in lines)
    return {variant: "; ".join(lines) for variant, lines in found.items()}
