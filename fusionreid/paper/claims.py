"""What the paper says of its numbers (Sec. IV.D), as differences whose sign can be looked up in any data.

A claim is a weighted sum of accuracies; most are one row less another. The sign of the paper's own numbers is looked up
in the recorded runs and in the reader's own. A profile's stand-ins for the backbones were chosen by how they do alone,
so their order says nothing and is not counted; what two tables hold is counted once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from ..config import FEATURES, LABELS
from ..files import atomic_write
from . import compare, recorded
from . import numbers as paper
from .experiments import BACKBONES, DEPTHS, Setting


@dataclass(frozen=True)
class Claim:
    """One sign to look up: what is claimed, of which rows, and their weights by (variant, feature)."""

    text: str
    case: str
    weights: dict[tuple[str, str], float]
    order: bool = False  # of backbones: where they have stand-ins it holds by construction


def _above(
    text: str, *pairs: tuple[str, str], better: str = "all", worse: str = "all", order: bool = False
) -> list[Claim]:
    """A claim for each pair of variants, the better one first, of the features `better` and `worse`."""
    found = []
    for one, other in pairs:
        first = one if (better, worse) == ("all", "all") else f"{one}, {LABELS[better]}"
        second = other if worse == "all" else LABELS[worse]  # of the same variant
        found.append(Claim(text, f"{first} > {second}", {(one, better): 1.0, (other, worse): -1.0}, order))
    return found


def _of_table6() -> list[Claim]:
    *cnns, t2t, vit, deit = BACKBONES
    pairs = {(cnn, other): f"{cnn} + {other}" for cnn in cnns for other in (t2t, vit, deit)}
    over_cnn, over_transformer = ([(pair, alone[side]) for alone, pair in pairs.items()] for side in (0, 1))
    together = [(pair, pair) for pair in pairs.values()]
    deeper = [(cnns[1], cnns[0]), (cnns[2], cnns[1])]
    inside = [(pairs[more, other], pairs[less, other]) for other in (t2t, vit, deit) for more, less in deeper]
    return [
        *_above("fusion lifts the CNN's feature", *over_cnn, better="cnn_fused"),
        *_above("fusion lifts the Transformer's feature", *over_transformer, better="transformer_fused"),
        *_above("all six features beat one branch's fused", *together, worse="cnn_fused"),
        *_above("all six features beat one branch's fused", *together, worse="transformer_fused"),
        *_above("ViT-B/16* and DeiT-B/16* beat the ResNets", *product((vit, deit), cnns), order=True),
        *_above("ViT-B/16*, then DeiT-B/16*, then T2T-ViT-14", (vit, deit), (deit, t2t), order=True),
        *_above("a deeper ResNet is better, alone", *deeper, order=True),
        *_above("a deeper ResNet is better, in a pair", *inside, order=True),
    ]


def _of_figure5() -> list[Claim]:
    same = [(f"L = {depth}", f"L = {depth}") for depth in DEPTHS]
    weights = dict(zip(((name, "all") for name, _ in same), (-1, 2, *[-1 / 4] * 4), strict=True))
    case = "gain of L = 2 over 1 > gain of L = 3 to 6 (mean) over 2"
    return [
        *_above("refined beats backbone", *same, better="cnn_refined", worse="cnn"),
        *_above("refined beats backbone", *same, better="transformer_refined", worse="transformer"),
        *_above("fused beats refined", *same, better="cnn_fused", worse="cnn_refined"),
        *_above("fused beats refined", *same, better="transformer_fused", worse="transformer_refined"),
        *_above("a second HTM helps", ("L = 2", "L = 1")),
        Claim("accuracy saturates above L = 2", case, weights),
    ]


_SEUS, _MFUS = (("SEU shared", "SEU unshared"), ("MFU shared", "MFU unshared"))
CLAIMS = {
    "table1": [
        *_above("overlapping patches help", ("FusionReID*", "FusionReID"), ("FusionReID* ↑", "FusionReID ↑")),
        *_above("larger images help", ("FusionReID* ↑", "FusionReID*"), ("FusionReID ↑", "FusionReID")),
    ],
    "table2": [
        *_above("two branches beat one", ("DFE", "ResNet50"), ("DFE", "ViT-B/16*")),
        *_above("LRU adds", ("DFE + LRU", "DFE")),
        *_above("SEU adds", ("DFE + LRU + SEU", "DFE + LRU"), ("FusionReID*", "DFE + LRU + MFU")),
        *_above("MFU adds", ("DFE + LRU + MFU", "DFE + LRU"), ("FusionReID*", "DFE + LRU + SEU")),
        *_above("the full model beats DFE", ("FusionReID*", "DFE")),
    ],
    "table3": [
        *_above("SEU first, MFU second is best", *(("SEU, MFU", row) for row in ("SEU only", "MFU only", "MFU, SEU"))),
        *_above("MFU first, SEU second is worst", ("SEU only", "MFU, SEU"), ("MFU only", "MFU, SEU")),
    ],
    "table4": [
        *_above("sharing the SEU helps", *((f"SEU shared, {mfu}", f"SEU unshared, {mfu}") for mfu in _MFUS)),
        *_above("an MFU for each branch helps", *((f"{seu}, MFU unshared", f"{seu}, MFU shared") for seu in _SEUS)),
        *_above("both choices beat neither", ("SEU shared, MFU unshared", "SEU unshared, MFU shared")),
    ],
    "table5": _above("GeM beats GAP", ("GeM", "GAP")),
    "table6": _of_table6(),
    "figure5": _of_figure5(),
    "figure6": [
        *_above("D = 384 is worst", *((f"D = {dim}", "D = 384") for dim in (768, 1152, 1536))),
        *_above("D = 1152 is best", ("D = 1152", "D = 768"), ("D = 1152", "D = 1536")),
    ],
}


def check(names: str | Sequence[str], setting: Setting) -> pd.DataFrame:
    """Each claim on some experiments, beside what was measured. Draws of the paper are left out.

    Returns a row per case and metric: `experiment`, `claim`, `case`, `metric`; `paper`, `recorded` and `ours` (points;
    ours is the mean over the reader's seeds), the 95 % interval of `recorded` from `low` to `high` and its `runs`;
    `verdict` of the recorded runs, one of VERDICTS ("undecided": the interval holds zero); `sign` of the own run,
    "yes", "no", "equal" or "not run"; `part` and `size` (of the paper's difference) for `totals`.
    """
    found, seen = [], set()
    measured = compare.frame(names, setting, (*FEATURES, "all"))
    for (name, metric), part in measured.groupby(["experiment", "metric"], sort=False):
        rows = part.pivot(index=["variant", "feature"], columns="seed", values=["paper", "ours"])
        keys = dict(zip(part["variant"], part["configuration"], strict=True))
        for claim in CLAIMS[name]:
            weights = {(keys[row], feature): weight for (row, feature), weight in claim.weights.items()}
            same = (metric, frozenset(weights.items()))
            sums = rows.loc[list(claim.weights)].mul(list(claim.weights.values()), axis=0).sum(skipna=False).round(6)
            theirs, own = sums["paper"].iloc[0], round(sums["ours"].mean(), 6)
            if theirs == 0 or same in seen or (claim.order and setting.profile.backbones):
                continue
            seen.add(same)
            less = recorded.contrast(weights, metric)
            sure = np.sign(less.low) if less.low * less.high > 0 else 0 * less.low  # NaN: not recorded
            verdict = {1: "yes", -1: "no", 0: "undecided"}.get(sure * np.sign(theirs), "not recorded")
            found.append({
                "experiment": name, "claim": claim.text, "case": claim.case, "metric": metric, "paper": theirs,
                "recorded": less.mean, "low": less.low, "high": less.high, "runs": less.runs, "ours": own,
                "verdict": verdict,
                "sign": {1: "yes", -1: "no", 0: "equal"}.get(np.sign(own * theirs), "not run"),
            })  # fmt: skip
    found = pd.DataFrame(found)
    found["part"] = found["experiment"].map({"table6": "Table VI"}).fillna("all others")
    sizes = ["under 1 point", "1 to 3", "3 and more"]
    return found.assign(size=pd.cut(found["paper"].abs(), [0, 1, 3, np.inf], right=False, labels=sizes))


VERDICTS = ("yes", "no", "undecided", "not recorded")


def totals(checked: pd.DataFrame, by: Sequence[str] = ("part", "size")) -> pd.DataFrame:
    """How many cases have which verdict, and how many have the paper's sign in the own run, of those that are run.

    `by` are columns of `check` besides the metric. `part` keeps Table VI apart, which has most of the cases.
    """
    groups = checked.groupby([*by, "metric"], sort="size" in by, observed=True)  # sizes ascend, claims stay in order
    counts = groups["verdict"].value_counts().unstack(fill_value=0).reindex(columns=VERDICTS, fill_value=0)
    counts["own run"] = groups["sign"].agg(lambda signs: f"{sum(signs == 'yes')} of {sum(signs != 'not run')}")
    return counts.rename_axis(columns=None)


def save(checked: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Writes `<path>.csv`; returns a table to show: of each case and metric the differences, verdict and own sign."""
    with atomic_write(f"{path}.csv") as temporary:
        checked.to_csv(temporary, index=False, float_format="%.4f")
    text = pd.DataFrame({
        "paper": _points(row.paper),
        "recorded": _points(row.recorded) + ("" if np.isnan(row.low) else f" ± {(row.high - row.low) / 2:.1f}"),
        "holds": row.verdict,
        "own run": row.sign,
    } for row in checked.itertuples())  # fmt: skip
    short = {name: title.split(":")[0] for name, title in paper.TITLES.items()}
    keys = [checked["experiment"].map(short), checked["claim"], checked["case"]]
    text.index = pd.MultiIndex.from_arrays([*keys, checked["metric"]], names=["of", "claim", "case", "metric"])
    parts = {metric: part.droplevel("metric") for metric, part in text.groupby(level="metric", sort=False)}
    return pd.concat(parts, axis=1).fillna("")


def _points(value: float) -> str:
    """A difference in points, signed; never 0.0 where it is not zero."""
    return "" if np.isnan(value) else "0.0" if value == 0 else f"{value:+.{1 if abs(value) >= 0.05 else 2}f}"
