"""What the paper says of its numbers (Sec. IV.D), as differences whose sign can be looked up in any data.

A claim is a weighted sum of accuracies, most often one row less another; `claims.csv` holds them. The sign of the
paper's own numbers is looked up in the recorded runs and in the reader's own. A profile's stand-ins for the backbones
were chosen by how they do alone, so their order says nothing and is not counted; what two tables hold is counted once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from ..config import FEATURES
from ..files import atomic_write
from . import compare, recorded
from . import numbers as paper
from .experiments import Setting


@dataclass(frozen=True)
class Claim:
    """One sign to look up: what is claimed, of which rows, and their weights by (variant, feature)."""

    text: str
    case: str
    weights: dict[tuple[str, str], float]
    order: bool = False  # of backbones: where they have stand-ins it holds by construction


def _read() -> dict[str, list[Claim]]:
    with (files(__package__) / "claims.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, keep_default_na=False)
    found: dict[str, list[Claim]] = {}
    for (experiment, text, case), rows in table.groupby(
        ["experiment", "claim", "case"], sort=False
    ):
        weights = dict(
            zip(zip(rows["variant"], rows["feature"], strict=True), rows["weight"], strict=True)
        )
        found.setdefault(experiment, []).append(
            Claim(text, case, weights, "yes" in rows["order"].values)
        )
    return found


CLAIMS = _read()


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
            weights = {
                (keys[row], feature): weight for (row, feature), weight in claim.weights.items()
            }
            same = (metric, frozenset(weights.items()))
            sums = (
                rows.loc[list(claim.weights)]
                .mul(list(claim.weights.values()), axis=0)
                .sum(skipna=False)
                .round(6)
            )
            theirs, own = sums["paper"].iloc[0], round(sums["ours"].mean(), 6)
            if theirs == 0 or same in seen or (claim.order and setting.profile.backbones):
                continue
            seen.add(same)
            less = recorded.contrast(weights, metric)
            sure = (
                np.sign(less.low) if less.low * less.high > 0 else 0 * less.low
            )  # NaN: not recorded
            verdict = {1: "yes", -1: "no", 0: "undecided"}.get(
                sure * np.sign(theirs), "not recorded"
            )
            found.append({
                "experiment": name, "claim": claim.text, "case": claim.case, "metric": metric, "paper": theirs,
                "recorded": less.mean, "low": less.low, "high": less.high, "runs": less.runs, "ours": own,
                "verdict": verdict,
                "sign": {1: "yes", -1: "no", 0: "equal"}.get(np.sign(own * theirs), "not run"),
            })  # fmt: skip
    found = pd.DataFrame(found)
    found["part"] = found["experiment"].map({"table6": "Table VI"}).fillna("all others")
    sizes = ["under 1 point", "1 to 3", "3 and more"]
    return found.assign(
        size=pd.cut(found["paper"].abs(), [0, 1, 3, np.inf], right=False, labels=sizes)
    )


VERDICTS = ("yes", "no", "undecided", "not recorded")


def totals(checked: pd.DataFrame, by: Sequence[str] = ("part", "size")) -> pd.DataFrame:
    """How many cases have which verdict, and how many have the paper's sign in the own run, of those that are run.

    `by` are columns of `check` besides the metric. `part` keeps Table VI apart, which has most of the cases.
    """
    groups = checked.groupby(
        [*by, "metric"], sort="size" in by, observed=True
    )  # sizes ascend, claims stay in order
    counts = (
        groups["verdict"]
        .value_counts()
        .unstack(fill_value=0)
        .reindex(columns=VERDICTS, fill_value=0)
    )
    counts["own run"] = groups["sign"].agg(
        lambda signs: f"{sum(signs == 'yes')} of {sum(signs != 'not run')}"
    )
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
    text.index = pd.MultiIndex.from_arrays(
        [*keys, checked["metric"]], names=["of", "claim", "case", "metric"]
    )
    parts = {
        metric: part.droplevel("metric")
        for metric, part in text.groupby(level="metric", sort=False)
    }
    return pd.concat(parts, axis=1).fillna("")


def _points(value: float) -> str:
    """A difference in points, signed; never 0.0 where it is not zero."""
    return (
        ""
        if np.isnan(value)
        else "0.0"
        if value == 0
        else f"{value:+.{1 if abs(value) >= 0.05 else 2}f}"
    )
