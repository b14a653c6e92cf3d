"""What the paper says of its numbers (Sec. IV.D), and whether the measured ones agree.

A claim is a difference in mAP that should be above zero. It is a weighted sum of accuracies, most
often one row minus another; `claims.csv` holds the terms. Where a claim has several cases, nine
pairs of backbones for example, it is judged by their mean. Claims of the kind "ours" are no
statements of the paper. Two are differences between its numbers: what training together does to the
branches' own features. One, on MFU as printed, has no number in the paper.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from .. import paths
from ..files import atomic_write
from . import numbers as paper
from . import recorded
from .compare import SOURCES, Results

# A row per term: of which experiment, claim and case, and the weight of which variant's feature.
# The kind "order" is an order of backbones, which holds by construction where these have stand-ins.
CLAIMS = pd.read_csv(paths.PACKAGE / "paper" / "claims.csv", keep_default_na=False)
MARGIN = 0.5  # in mAP: a difference that is surely smaller is none
VERDICTS = ("yes", "undecided", "no difference", "no")  # of a claim whose rows are recorded
LEVEL = 0.05  # of significance, as all intervals are of 95 %


def judge(results: Results) -> pd.DataFrame:
    """Each claim on some experiments, beside what was measured, in mAP.

    Left out are orders of backbones where a profile has stand-ins, which were chosen by how they do
    alone, and claims that need other experiments too.

    Returns a row per claim and source: `experiment`, `claim`, `source`, `metric` ("mAP"); `case`,
    which names the row; `difference` in points, of own runs as the mean over seeds. Of recorded
    runs, `low` to `high` is its interval, `p` that of Student's test, `above` the probability that
    the true difference is above zero if every difference was equally likely before, `runs` their
    number, and `locked` the difference on the locked draws.
    `verdict` is "yes" or "no" where the interval is above or below zero, "no difference" where it
    is inside `MARGIN` instead, and else "undecided", "too few runs" or "not recorded". Where only
    some cases are recorded, it is "1 of 9 cases"; then `part`, not `difference`, is the mean of
    these cases, with its interval. Of own runs it is the sign: "yes", "no", "equal" or "not run".
    `kind` is that of the claim.
    """
    claims = _of_profile(results)
    runs = results.runs[results.runs["metric"] == "mAP"]
    rows = []
    for claim, terms in claims.groupby("claim", sort=False):
        if not terms["experiment"].isin(runs["experiment"]).all():
            continue
        cases = terms["case"].nunique()
        measured = terms.merge(runs, on=["experiment", "variant", "feature"])
        of_one_seed = measured[measured["seed"] == results.setting.seeds[0]]
        name = terms["experiment"].iloc[0]
        for source in SOURCES:
            row = {"experiment": name, "claim": claim, "case": claim, "metric": "mAP"}
            row |= {"kind": terms["kind"].iloc[0], "source": source, "part": np.nan}
            if source in recorded.SOURCES:
                weights = _weights(of_one_seed, source, cases)
                interval = recorded.contrast(weights, "mAP")
                row["locked"] = recorded.contrast(weights, "mAP", locked=True).mean
                row |= interval._asdict() | {"verdict": _verdict(*interval[:3])}
                row["above"] = interval.p / 2 if interval.mean < 0 else 1 - interval.p / 2
                if row["verdict"] == "not recorded":
                    row |= _recorded_part(of_one_seed, source)
            else:
                values = measured["weight"] * measured[source] / cases
                sums = values.groupby(measured["seed"]).sum(min_count=len(terms))
                row["mean"] = round(sums.mean(), 6)
                row["verdict"] = _sign(row["mean"]) if source == "own" else ""
            rows.append(row)
    return pd.DataFrame(rows).rename(columns={"mean": "difference"})


def _of_profile(results: Results) -> pd.DataFrame:
    """The terms of the claims that a profile can judge."""
    return CLAIMS[CLAIMS["kind"] != "order"] if results.setting.profile.backbones else CLAIMS


def _weights(terms: pd.DataFrame, source: str, cases: int) -> recorded.Weights:
    """The weight of each row of the recorded runs in the mean over a claim's cases."""
    weights = terms.groupby([source, "feature"])["weight"].sum() / cases
    return weights[weights != 0].to_dict()


def _recorded_part(terms: pd.DataFrame, source: str) -> dict:
    """What `judge` says of a claim of which only some cases are recorded; {} if none is."""
    parts = []
    for _, of_case in terms.groupby("case", sort=False):
        if recorded.contrast(_weights(of_case, source, 1), "mAP").runs:
            parts.append(of_case)
    if not parts:
        return {}
    weights = _weights(pd.concat(parts), source, len(parts))
    interval = recorded.contrast(weights, "mAP")
    verdict = f"{len(parts)} of {terms['case'].nunique()} cases"
    unjudged = interval._replace(mean=np.nan, p=np.nan)
    return unjudged._asdict() | {"part": interval.mean, "verdict": verdict}


def _verdict(mean: float, low: float, high: float) -> str:
    if np.isnan(low):
        return "not recorded" if np.isnan(mean) else "too few runs"
    if low > 0:
        return "yes"
    if high < 0:
        return "no"
    return "no difference" if max(-low, high) <= MARGIN else "undecided"


def _sign(difference: float) -> str:
    if np.isnan(difference):
        return "not run"
    return {1: "yes", 0: "equal", -1: "no"}[np.sign(difference)]


def corrected(judged: pd.DataFrame) -> pd.Series:
    """The verdicts when many claims are judged at once, by Benjamini and Hochberg (1995).

    In each source, at most one "yes" or "no" in twenty is then expected to be wrong. One that does
    not last becomes "undecided".
    """
    verdicts = judged["verdict"].copy()
    for source in recorded.SOURCES:
        p = judged.loc[judged["source"] == source, "p"].dropna()
        lost = p.index[false_discovery_control(p) > LEVEL] if len(p) else p.index
        verdicts[lost] = verdicts[lost].replace(["yes", "no"], "undecided")
    return verdicts


def sentences(judged: pd.DataFrame) -> str:
    """A line for each claim: the paper's difference, and each recorded one with its verdict.

    The verdict is `corrected`, where `judged` has it.
    """
    verdict = "corrected" if "corrected" in judged else "verdict"
    lines = []
    for claim, rows in judged.groupby("claim", sort=False):
        rows = rows.set_index("source")
        parts = [f"paper {signed(rows.loc['paper', 'difference']) or 'has no number'}"]
        for source in recorded.SOURCES:
            row = rows.loc[source]
            found = f"{source} people {row[verdict]}"
            if row["runs"]:
                runs = "1 run" if row["runs"] == 1 else f"{row['runs']:.0f} runs"
                found += f", {_found(row)} ({runs})"
            parts.append(found)
        lines.append(f"{claim}: {'; '.join(parts)}.")
    return "\n".join(lines)


def evidence(results: Results) -> pd.DataFrame:
    """The recorded runs behind each claim, and the command that trains them again.

    Returns a row per claim, variant, feature, source and data seed. `runs` are fingerprints, by
    which `recorded.csv` has the commit, the device and the accuracy of each. `locked` tells the
    draws that stand only in the column of locked draws.
    """
    names = ["experiment", "claim", "variant", "feature"]
    variants = results.runs.drop_duplicates(["experiment", "variant", "feature"])
    terms = _of_profile(results).merge(variants, on=["experiment", "variant", "feature"])
    terms = terms.melt(names, [*recorded.SOURCES], "source", "configuration")
    runs = terms.merge(recorded.archive().rows, on=["configuration", "feature"])
    keys = [*names, "source", "data_seed"]
    rows = []
    for key, of_row in runs.drop_duplicates([*keys, "run"]).groupby(keys, sort=False):
        first = of_row.iloc[0]
        seeds = " ".join(map(str, of_row["seed"]))
        command = (
            f'python -m fusionreid experiments {first["experiment"]} --rows "{first["variant"]}" '
            f"--profile {first['profile']} --dataset {first['data']} --size {first['size']} "
            f"--data-seeds {first['data_seed']} --seeds {seeds}"
        )
        rows.append([*key, " ".join(of_row["run"]), command])
    table = pd.DataFrame(rows, columns=[*keys, "runs", "command"])
    return table.assign(locked=table["data_seed"].isin(recorded.LOCKED))


def save(judged: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Writes `<path>.csv`, a row per claim and source.

    Returns a table to show, a row per claim: the differences, and what each source says.
    """
    with atomic_write(f"{path}.csv") as temporary:
        judged.to_csv(temporary, index=False, float_format="%.4f")
    points = judged.apply(_found, axis="columns")
    of = judged["experiment"].map(paper.TITLES).str.split(":").str[0]
    rows = judged.assign(of=of, points=points).set_index(["of", "claim"])
    columns = {"paper": rows.loc[rows["source"] == "paper", "points"]}
    for source in recorded.SOURCES:
        of_source = rows[rows["source"] == source]
        columns[f"{source} people"] = of_source["points"]
        columns[f"{source}: P(above 0)"] = of_source["above"].map("{:.2f}".format, "ignore")
        columns[f"holds on {source} people"] = of_source["verdict"]
        if of_source["locked"].notna().any():
            columns[f"{source}, locked draws"] = of_source["locked"].map(signed)
        if "corrected" in rows:
            columns[f"{source}, corrected"] = of_source["corrected"]
    columns["own run"] = rows.loc[rows["source"] == "own", "verdict"]
    return pd.DataFrame(columns)


def _found(row: pd.Series) -> str:
    """The difference of a row of `judge`, or that of its recorded cases, as `signed`."""
    mean = row["difference"] if np.isnan(row["part"]) else row["part"]
    return signed(mean, row["low"], row["high"])


def signed(difference: float, low: float = np.nan, high: float = np.nan) -> str:
    """A difference in points with its sign, ± half its interval where that is known; "" for NaN.

    It has two decimals where one could hide on which side of a verdict's limit the interval ends.
    """
    if np.isnan(difference):
        return ""
    gaps = np.abs([low, high, low + MARGIN, high - MARGIN])
    digits = 2 if gaps.min() < 0.1 else 1
    text = f"{difference:+.{digits}f}"
    if float(text) == 0:
        text = text[1:]
    return text if np.isnan(low) else f"{text} ± {(high - low) / 2:.{digits}f}"
