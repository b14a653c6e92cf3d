"""What the paper says of its numbers (Sec. IV.D), and whether the measured ones agree.

A claim is a weighted sum of accuracies, most often one row less another; `claims.csv` holds them.
The sign of the paper's own sum is looked for in the recorded runs and in the reader's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from .. import paths
from ..files import atomic_write
from . import numbers as paper
from . import recorded
from .compare import Results
from .intervals import Interval

VERDICTS = ("yes", "no", "undecided", "not recorded")


@dataclass(frozen=True)
class Claim:
    """What is claimed, of which case, and the weights of its sum by (variant, feature)."""

    text: str
    case: str
    weights: dict[tuple[str, str], float]
    order: bool  # of backbones: it holds by construction where they have stand-ins


def _read_claims() -> dict[str, list[Claim]]:
    """The claims by experiment."""
    table = pd.read_csv(paths.PACKAGE / "paper" / "claims.csv", keep_default_na=False)
    claims = {}
    for (name, text, case), rows in table.groupby(["experiment", "claim", "case"], sort=False):
        weights = rows.set_index(["variant", "feature"])["weight"].to_dict()
        claim = Claim(text, case, weights, order="yes" in set(rows["order"]))
        claims.setdefault(name, []).append(claim)
    return claims


CLAIMS = _read_claims()


def judge(results: Results) -> pd.DataFrame:
    """Each claim on some experiments, beside what was measured.

    Left out are draws in the paper; what an experiment before has claimed of the same models; and
    orders of backbones where a profile has stand-ins, which were chosen by how they do alone.

    Returns a row per case and metric: `experiment`, `claim`, `case`, `metric`; the sums `paper`,
    `recorded` and `ours` in points, ours as the mean over the reader's seeds; `low` and `high`, the
    interval of `recorded`, and its `runs`; `verdict` of the recorded runs, one of VERDICTS, where
    "undecided" is an interval that holds zero; `sign` of the own run, "yes", "no", "equal" or
    "not run"; and for `totals` the `part` and the `size`, of the paper's sum.
    """
    rows = []
    seen = set()
    for (name, metric), runs in results.runs.groupby(["experiment", "metric"], sort=False):
        values = runs.pivot(index=["variant", "feature"], columns="seed", values=["paper", "ours"])
        configurations = dict(zip(runs["variant"], runs["configuration"], strict=True))
        for claim in CLAIMS[name]:
            weights = {
                (configurations[variant], feature): weight
                for (variant, feature), weight in claim.weights.items()
            }
            terms = values.loc[list(claim.weights)].mul(list(claim.weights.values()), axis=0)
            sums = terms.sum(skipna=False).round(6)  # by seed
            printed = sums["paper"].iloc[0]
            same = (metric, frozenset(weights.items()))
            by_construction = claim.order and results.setting.profile.backbones
            if printed == 0 or same in seen or by_construction:
                continue
            seen.add(same)
            interval = recorded.contrast(weights, metric)
            ours = round(sums["ours"].mean(), 6)
            about = (name, claim.text, claim.case, metric)
            verdict = _verdict(interval, printed)
            rows.append((*about, printed, *interval[:4], ours, verdict, _sign(ours * printed)))
    columns = ["experiment", "claim", "case", "metric", "paper", "recorded", "low", "high", "runs"]
    judged = pd.DataFrame(rows, columns=[*columns, "ours", "verdict", "sign"])
    part = np.where(judged["experiment"] == "table6", "Table VI", "all others")
    sizes = ["under 1 point", "1 to 3", "3 and more"]
    size = pd.cut(judged["paper"].abs(), [0, 1, 3, np.inf], right=False, labels=sizes)
    return judged.assign(part=part, size=size)


def _verdict(interval: Interval, printed: float) -> str:
    if np.isnan(interval.low):
        return "not recorded"
    if interval.low <= 0 <= interval.high:
        return "undecided"
    return "yes" if interval.mean * printed > 0 else "no"


def _sign(product: float) -> str:
    if np.isnan(product):
        return "not run"
    if product == 0:
        return "equal"
    return "yes" if product > 0 else "no"


def totals(judged: pd.DataFrame, by: Sequence[str] = ("part", "size")) -> pd.DataFrame:
    """How many cases have which verdict, and how many of those run have the paper's sign.

    `by` are columns of `judge` besides the metric. `part` keeps Table VI, which has most of the
    cases, apart.
    """
    # Sizes ascend; claims stay in their order.
    groups = judged.groupby([*by, "metric"], sort="size" in by, observed=True)
    counts = groups["verdict"].value_counts().unstack(fill_value=0)
    counts = counts.reindex(columns=VERDICTS, fill_value=0).rename_axis(columns=None)
    counts["own run"] = groups["sign"].agg(
        lambda signs: f"{sum(signs == 'yes')} of {sum(signs != 'not run')}"
    )
    return counts


def save(judged: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Writes `<path>.csv`.

    Returns a table to show: of each case and metric the differences, the verdict and the own sign.
    """
    with atomic_write(f"{path}.csv") as temporary:
        judged.to_csv(temporary, index=False, float_format="%.4f")
    half = (judged["high"] - judged["low"]) / 2
    short_titles = {name: title.split(":")[0] for name, title in paper.TITLES.items()}
    texts = {
        "of": judged["experiment"].map(short_titles),
        "claim": judged["claim"],
        "case": judged["case"],
        "metric": judged["metric"],
        "paper": judged["paper"].map(_points),
        "recorded": judged["recorded"].map(_points)
        + half.map(" ± {:.1f}".format).where(half >= 0, ""),
        "holds": judged["verdict"],
        "own run": judged["sign"],
    }
    shown = pd.DataFrame(texts).set_index(["of", "claim", "case"])
    parts = shown.groupby("metric", sort=False)
    return pd.concat(
        {metric: part.drop(columns="metric") for metric, part in parts}, axis=1
    ).fillna("")


def _points(value: float) -> str:
    """A difference in points, signed; never 0.0 where it is not zero."""
    if np.isnan(value):
        return ""
    if value == 0:
        return "0.0"
    return f"{value:+.1f}" if abs(value) >= 0.05 else f"{value:+.2f}"
