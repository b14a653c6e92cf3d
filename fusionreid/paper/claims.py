"""What the paper says of its numbers (Sec. IV.D), as differences whose sign can be looked up in any data.

A claim is a weighted sum of accuracies that is above zero where the claim holds; most are one row less another. The
paper's own sign decides wherever it prints the numbers, its text where it only plots them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from ..config import FEATURES, DataConfig, Profile
from ..config import profile as find_profile
from ..files import atomic_write
from . import numbers as paper
from . import results
from .beside import printed
from .experiments import BACKBONES, DEPTHS
from .tables import ACCURACY, SYMBOLS


@dataclass(frozen=True)
class Claim:
    """One sign to look up.

    Attributes:
        experiment: "table1" to "figure6".
        text: what is claimed; several cases can share it.
        case: which rows, in words.
        weights: {(variant, feature): weight}; the weighted sum is above zero where the claim holds.
    """

    experiment: str
    text: str
    case: str
    weights: dict[tuple[str, str], float]


def _above(experiment: str, text: str, *pairs: tuple[str, str], better: str = "all", worse: str = "all") -> list[Claim]:
    """One claim a pair of variants, the better first; of the features `better` and `worse`."""
    found = []
    for one, other in pairs:
        first, second = one, other
        if (better, worse) != ("all", "all"):
            first = f"{one}, {SYMBOLS[better]}"
            second = SYMBOLS[worse] if one == other else other + (f", {SYMBOLS[worse]}" if worse != "all" else "")
        found.append(Claim(experiment, text, f"{first} > {second}", {(one, better): 1.0, (other, worse): -1.0}))
    return found


def _of_table1() -> list[Claim]:
    return [
        *_above("table1", "overlapping patches help", ("FusionReID*", "FusionReID"), ("FusionReID* ↑", "FusionReID ↑")),
        *_above("table1", "larger images help", ("FusionReID* ↑", "FusionReID*"), ("FusionReID ↑", "FusionReID")),
    ]


def _of_table2() -> list[Claim]:
    dfe, lru, seu, mfu, full = "DFE", "DFE + LRU", "DFE + LRU + SEU", "DFE + LRU + MFU", "FusionReID*"
    return [
        *_above("table2", "two branches beat one", (dfe, "ResNet50"), (dfe, "ViT-B/16*")),
        *_above("table2", "LRU adds", (lru, dfe)),
        *_above("table2", "SEU adds", (seu, lru), (full, mfu)),
        *_above("table2", "MFU adds", (mfu, lru), (full, seu)),
        *_above("table2", "the full model beats DFE", (full, dfe)),
    ]


def _of_table3() -> list[Claim]:
    best, last = "SEU, MFU", "MFU, SEU"
    return [
        *_above("table3", "SEU first, MFU second is best", (best, "SEU only"), (best, "MFU only"), (best, last)),
        *_above("table3", "MFU first, SEU second is worst", ("SEU only", last), ("MFU only", last)),
    ]


def _of_table4() -> list[Claim]:
    name = "SEU {}, MFU {}".format
    one, own = "shared", "unshared"
    return [
        *_above("table4", "sharing the SEU helps", *((name(one, mfu), name(own, mfu)) for mfu in (one, own))),
        *_above("table4", "an MFU for each branch helps", *((name(seu, own), name(seu, one)) for seu in (one, own))),
        *_above("table4", "both choices beat neither", (name(one, own), name(own, one))),
    ]


def _of_table5() -> list[Claim]:
    return _above("table5", "GeM beats GAP", ("GeM", "GAP"))


def _of_table6() -> list[Claim]:
    names = list(BACKBONES)
    cnns, (t2t, vit, deit) = names[:3], names[3:]
    pairs = [(f"{cnn} + {other}", cnn, other) for cnn in cnns for other in names[3:]]
    over_cnn, over_transformer = ([(pair[0], pair[branch]) for pair in pairs] for branch in (1, 2))
    beats = [(transformer, cnn) for transformer in (vit, deit) for cnn in cnns]
    deeper = [(cnns[1], cnns[0]), (cnns[2], cnns[1])]
    claims = _above("table6", "fusion lifts the CNN's feature", *over_cnn, better="cnn_fused")
    claims += _above("table6", "fusion lifts the Transformer's feature", *over_transformer, better="transformer_fused")
    for feature in ("cnn_fused", "transformer_fused"):
        together = ((pair, pair) for pair, _, _ in pairs)
        claims += _above("table6", "all six features beat one branch's fused", *together, worse=feature)
    claims += _above("table6", "ViT-B/16* and DeiT-B/16* beat the ResNets", *beats)
    claims += _above("table6", "ViT-B/16*, then DeiT-B/16*, then T2T-ViT-14", (vit, deit), (deit, t2t))
    claims += _above("table6", "a deeper ResNet is better, alone", *deeper)
    inside = [(f"{more} + {other}", f"{less} + {other}") for other in (t2t, vit, deit) for more, less in deeper]
    return claims + _above("table6", "a deeper ResNet is better, in a pair", *inside)


def _of_figure5() -> list[Claim]:
    claims, name = [], "L = {}".format
    stages = (("refined beats backbone", "_refined", ""), ("fused beats refined", "_fused", "_refined"))
    for text, better, worse in stages:
        for branch in ("cnn", "transformer"):
            same = ((name(depth), name(depth)) for depth in DEPTHS)
            claims += _above("figure5", text, *same, better=branch + better, worse=branch + worse)
    claims += _above("figure5", "a second HTM helps", (name(2), name(1)))
    later = {(name(depth), "all"): -1 / len(DEPTHS[2:]) for depth in DEPTHS[2:]}
    weights = {(name(2), "all"): 2.0, (name(1), "all"): -1.0, **later}
    case = "gain of L = 2 over 1 > gain of L = 3 to 6 (mean) over 2"
    return [*claims, Claim("figure5", "accuracy saturates above L = 2", case, weights)]


def _of_figure6() -> list[Claim]:
    name = "D = {}".format
    return [
        *_above("figure6", "D = 384 is worst", *((name(dim), name(384)) for dim in (768, 1152, 1536))),
        *_above("figure6", "D = 1152 is best", (name(1152), name(768)), (name(1152), name(1536))),
    ]


_OF = {
    "table1": _of_table1,
    "table2": _of_table2,
    "table3": _of_table3,
    "table4": _of_table4,
    "table5": _of_table5,
    "table6": _of_table6,
    "figure5": _of_figure5,
    "figure6": _of_figure6,
}
KNOWN = tuple(_OF)


def of(name: str) -> list[Claim]:
    """The claims on one experiment, "table1" to "figure6"."""
    return _OF[name]()


def check(
    names: str | Sequence[str],
    profile: str | Profile = "demo",
    *,
    dataset: str | DataConfig | None = None,
    seeds: Sequence[int] = (0,),
    runs_root: str | Path | None = None,
) -> pd.DataFrame:
    """Each claim on some experiments, beside what was measured.

    Args:
        names: "table1" to "figure6", or several.
        profile, dataset, seeds, runs_root: as those of `results.rows`.

    Returns:
        A row per case and metric: `experiment`, `claim`, `case`, `metric` ("mAP", "rank-1"), `paper` (points; NaN: not
        printed), `ours` (points, mean over the seeds that have all rows), `std` (NaN below two), `seeds` (how many),
        `agreeing` (in how many of them the sign is the paper's) and `holds`: "yes", "no", "equal" or "not run". A case
        that the paper prints as a draw is left out.
    """
    data = results.data_of(find_profile(profile), dataset)
    options = dict(dataset=dataset, seeds=tuple(seeds), runs_root=runs_root, features=(*FEATURES, "all"))
    found = []
    for name in [names] if isinstance(names, str) else names:
        measured, theirs = results.rows(name, profile, **options), printed(name, data.name)
        for metric in ACCURACY:
            ours = measured.pivot(index=["variant", "feature"], columns="seed", values=metric)
            for claim in of(name):
                reported = _weighed(theirs[[metric]], claim).round(6).iloc[0]
                values = _weighed(ours, claim).dropna().round(6)
                if reported == 0:
                    continue
                signs = np.sign(values * (-1 if reported < 0 else 1))
                mean = round(values.mean(), 6) + 0.0  # 0 where the seeds cancel out
                sign = 0 if mean == 0 else math.copysign(1, mean * (-1 if reported < 0 else 1))
                found.append({
                    "experiment": name, "claim": claim.text, "case": claim.case, "metric": metric, "paper": reported,
                    "ours": mean, "std": values.std(ddof=1), "seeds": len(values), "agreeing": int((signs > 0).sum()),
                    "holds": {1: "yes", 0: "equal", -1: "no"}[sign] if len(values) else "not run",
                })  # fmt: skip
    return pd.DataFrame(found)


def _weighed(frame: pd.DataFrame, claim: Claim) -> pd.Series:
    """The claim's sum in each column; NaN where a row is missing."""
    rows = frame.reindex(list(claim.weights))
    return rows.mul(list(claim.weights.values()), axis=0).sum(axis=0, skipna=False)


def order(name: str, profile: str | Profile = "demo", **options) -> pd.DataFrame:
    """How alike the two orders of an experiment's rows are, by f_a: of all pairs that the paper ranks, how many are so.

    Args:
        name, profile, options: as those of `results.rows`.

    Returns:
        A row per metric: `experiment`, `metric`, `pairs` (ranked by the paper, and measured) and `alike`.
    """
    data = results.data_of(find_profile(profile), options.get("dataset"))
    ours = results.collect(name, profile, features=("all",), **options).set_index("variant")
    theirs = printed(name, data.name).xs("all", level="feature")
    rows = []
    for metric in ACCURACY:
        both = pd.DataFrame({"paper": theirs[metric], "ours": ours[metric]}).dropna()
        steps = [both.iloc[one] - both.iloc[other] for one, other in combinations(range(len(both)), 2)]
        steps = [step for step in steps if step["paper"]]
        alike = sum(step["paper"] * step["ours"] > 0 for step in steps)
        rows.append({"experiment": name, "metric": metric, "pairs": len(steps), "alike": alike})
    return pd.DataFrame(rows)


def shown(checked: pd.DataFrame) -> pd.DataFrame:
    """`check` for reading: a row per case; of each metric the paper's difference, ours and whether the signs agree."""
    text = pd.DataFrame({
        "paper": [_points(value) or "plotted" for value in checked["paper"]],
        "ours": [_points(mean) + ("" if math.isnan(std) else f" ± {std:.1f}")
                 for mean, std in zip(checked["ours"], checked["std"], strict=True)],
        "holds": [holds if seeds < 2 else f"{holds} ({agreeing} of {seeds})" for holds, agreeing, seeds in
                  zip(checked["holds"], checked["agreeing"], checked["seeds"], strict=True)],
    })  # fmt: skip
    keys = [checked["experiment"].map(lambda name: paper.TITLES[name].split(":")[0]), checked["claim"], checked["case"]]
    text.index = pd.MultiIndex.from_arrays([*keys, checked["metric"]], names=["of", "claim", "case", "metric"])
    parts = {metric: part.droplevel("metric") for metric, part in text.groupby(level="metric", sort=False)}
    return pd.concat(parts, axis=1).fillna("")


def save(checked: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Writes `<path>.csv`; returns the table for reading, so that a cell which ends in `save(...)` shows it."""
    path = Path(path)
    with atomic_write(path.with_name(f"{path.name}.csv")) as temporary:
        checked.to_csv(temporary, index=False, float_format="%.4f")
    return shown(checked)


def report(checked: pd.DataFrame, most: int = 4) -> str:
    """`check` in sentences, in Markdown: of each claim in how many cases the sign is the paper's, and where it is not.

    Args:
        checked: from `check`.
        most: how many of a claim's cases that differ are named.
    """
    lines = []
    for (name, claim), group in checked.groupby(["experiment", "claim"], sort=False):
        done = group[group["holds"] != "not run"]
        counts = [f"{metric} {(part['holds'] == 'yes').sum()} of {len(part)}"
                  for metric, part in done.groupby("metric", sort=False)]  # fmt: skip
        counts += [f"{len(group) - len(done)} not run"] if len(done) < len(group) else []
        others = [
            f"{row.metric} {row.case} (paper {_points(row.paper) or 'above zero'}, here {_points(row.ours)})"
            for row in done[done["holds"] != "yes"].itertuples()
        ]
        more = [f"{len(others) - most} more"] if len(others) > most else []
        tail = f". Not in: {'; '.join(others[:most] + more)}" if others else ""
        text = f"{paper.TITLES[name].split(':')[0]}, {claim}: the paper's sign in {', '.join(counts)}{tail}."
        lines.append("- " + text.replace("*", r"\*").replace("_", r"\_").replace(">", r"\>"))
    return "\n".join(lines)


def _points(value: float) -> str:
    """A difference in points, signed; never 0.0 where it is not zero."""
    return "" if math.isnan(value) else "0.0" if value == 0 else f"{value:+.{1 if abs(value) >= 0.05 else 2}f}"
