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
        return pd.read_csv(file, keep_default_na=False, na_values=empty, dtype=dict.fromkeys(_NUMBERS, float))


def reported(name: str) -> dict[str, dict[str, float]]:
    """What the paper reports of each variant: {variant: {key: number}}, without what it leaves open.

    A key is a metric, with what it is of in front where that is not the whole model on MSMT17: "mAP", "rank-1"
    (percent), "parameters" (millions), "macs" (giga); "cnn_fused/mAP" in Table VI and Fig. 5; "market1501/mAP" in
    Table I, which names all its data sets; "market1501/cnn/mAP" in Fig. 5; "htm/parameters" in Tables III and IV.
    """
    found: dict[str, dict[str, float]] = {}
    for row in _ours(name).to_dict("records"):
        cost = "htm/" if row["counts"] == "one HTM" else ""
        entries = {key(name, row["dataset"], row["feature"], metric): row[metric] for metric in ("mAP", "rank-1")}
        entries |= {f"{cost}parameters": row["parameters"], f"{cost}macs": row["FLOPs"]}
        known = {entry: value for entry, value in entries.items() if not pd.isna(value)}
        found.setdefault(row["variant"], {}).update(known)
    return found


def key(name: str, dataset: str, feature: str, metric: str) -> str:
    """The key of an accuracy in `reported`."""
    where = [dataset] if name == "table1" or dataset != "msmt17" else []
    return "/".join([*where, *([] if feature == "all" else [feature]), metric])


def notes(name: str) -> dict[str, str]:
    """The different notes on each variant's numbers, joined: {variant: note}, "" where there is none."""
    groups = _ours(name).groupby("variant", sort=False)["note"]
    return {variant: "; ".join(filter(None, lines.unique())) for variant, lines in groups}


def _ours(name: str) -> pd.DataFrame:
    """The rows that are variants of FusionReID, without other people's methods."""
    frame = table(name)
    return frame[frame["variant"] != ""]
