"""What the paper says of its numbers (Sec. IV.D), and whether the measured ones agree.

A claim is a weighted sum of accuracies, most often one row less another; `claims.csv` holds them.
The sign of the paper's own sum is looked for in the recorded runs and in the reader's own.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from .. import paths
from ..files import atomic_write
from . import numbers as paper
from . import recorded
from .compare import Results

# A row per term: of which experiment, claim and case, and the weight of which variant's feature.
# `order` marks orders of backbones, which hold by construction where these have stand-ins.
CLAIMS = pd.read_csv(paths.PACKAGE / "paper" / "claims.csv", keep_default_na=False)


def judge(results: Results) -> pd.DataFrame:
    """Each claim on some experiments, beside what was measured.

    Left out are draws in the paper; what an experiment before has claimed of the same models; and
    orders of backbones where a profile has stand-ins, which were chosen by how they do alone.

    Returns a row per case and metric: `experiment`, `claim`, `case`, `metric`; the sums `paper`,
    `recorded` and `ours` in points, ours as the mean over the reader's seeds; `low` and `high`, the
    interval of `recorded`, and its `runs`; `verdict` of the recorded runs, "yes", "no",
    "undecided", an interval that holds zero, or "not recorded"; and `sign` of the own run, "yes",
    "no", "equal" or "not run".
    """
    terms = CLAIMS.merge(results.runs)
    if results.setting.profile.backbones:
        terms = terms[terms["order"] != "yes"]
    terms = terms.eval("""
        paper = weight * paper
        ours = weight * ours
    """)
    rows = []
    seen = set()
    for (name, metric), of_metric in terms.groupby(["experiment", "metric"], sort=False):
        for (claim, case), case_terms in of_metric.groupby(["claim", "case"], sort=False):
            keys = zip(case_terms["configuration"], case_terms["feature"], strict=True)
            weights = dict(zip(keys, case_terms["weight"], strict=True))
            sums = (
                case_terms.groupby("seed")[["paper", "ours"]].sum(min_count=len(weights)).round(6)
            )
            printed = sums["paper"].iloc[0]
            same = (metric, frozenset(weights.items()))
            if printed == 0 or same in seen:
                continue
            seen.add(same)
            interval = recorded.contrast(weights, metric)
            ours = round(sums["ours"].mean(), 6)
            rows.append(
                {
                    "experiment": name,
                    "claim": claim,
                    "case": case,
                    "metric": metric,
                    "paper": printed,
                    "recorded": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "runs": interval.runs,
                    "ours": ours,
                    "verdict": _agrees(
                        interval.low, interval.high, printed, "undecided", "not recorded"
                    ),
                    "sign": _agrees(ours, ours, printed, "equal", "not run"),
                }
            )
    return pd.DataFrame(rows)


def _agrees(low: float, high: float, printed: float, zero: str, unknown: str) -> str:
    """Whether an interval is on the paper's side of zero; `zero` if it holds zero."""
    if np.isnan(low):
        return unknown
    if low <= 0 <= high:
        return zero
    return "yes" if low * printed > 0 else "no"


def sentences(judged: pd.DataFrame) -> str:
    """A line for each case, in mAP: the paper's difference, the recorded one, and the verdict.

    The cases of a claim that has more than four of them are counted in one line.
    """
    lines = []
    for claim, cases in judged[judged["metric"] == "mAP"].groupby("claim", sort=False):
        if len(cases) > 4:
            words = cases["verdict"].value_counts()
            found = ", ".join(f"{count} {word}" for word, count in words.items())
            ranges = []
            for side in ("paper", "recorded"):
                if cases[side].notna().any():
                    ends = map(_points, (cases[side].min(), cases[side].max()))
                    ranges.append(f"{side} {' to '.join(ends)}")
            lines.append(f"{claim} ({len(cases)} cases): {', '.join(ranges)}: {found}.")
            continue
        for row in cases.itertuples():
            found = row.verdict
            if found != "not recorded":
                known = _points(row.recorded, (row.high - row.low) / 2)
                found = f"recorded {known} ({row.runs} runs): {found}"
            lines.append(f"{claim} ({row.case}): paper {_points(row.paper)}, {found}.")
    return "\n".join(lines)


def save(judged: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Writes `<path>.csv`.

    Returns a table to show: of each case and metric the differences, the verdict and the own sign.
    """
    with atomic_write(f"{path}.csv") as temporary:
        judged.to_csv(temporary, index=False, float_format="%.4f")
    half = (judged["high"] - judged["low"]) / 2
    shown = pd.DataFrame(
        {
            "paper": judged["paper"].map(_points),
            "recorded": list(map(_points, judged["recorded"], half)),
            "holds": judged["verdict"],
            "own run": judged["sign"],
        }
    )
    titles = judged["experiment"].map(paper.TITLES).str.split(":").str[0]
    keys = judged.assign(of=titles)[["of", "claim", "case", "metric"]]
    shown.index = pd.MultiIndex.from_frame(keys)
    metrics = shown.groupby("metric", sort=False)
    parts = {metric: rows.droplevel("metric") for metric, rows in metrics}
    return pd.concat(parts, axis=1).fillna("")  # a draw of one metric has no row


def _points(difference: float, half: float = np.nan) -> str:
    """A signed difference in points, ± half its interval."""
    if np.isnan(difference):
        return ""
    return f"{difference:+.1f}" if np.isnan(half) else f"{difference:+.1f} ± {half:.1f}"
