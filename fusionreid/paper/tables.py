"""Tables that people can read: the paper's columns, ours beside them, never a number of each in one column.

The best of a column is bold and the second best underlined, by tags, which code hosts leave in where they strip styles.
A missing run is a visible gap.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..config import DATASETS, LABELS
from ..files import atomic_write
from . import compare
from . import numbers as paper
from .compare import ACCURACY, features_of
from .experiments import Setting, variants

# The row that differences are from: the full model, or what it is built on.
BASES = {
    "table1": "FusionReID*",
    "table2": "DFE",
    "table3": "SEU, MFU",
    "table4": "SEU shared, MFU unshared",
    "table5": "GeM",
    "table6": "ResNet50 + ViT-B/16*",
    "figure5": "L = 2",
    "figure6": "D = 768",
    "differences": "PAPER",
}
COSTS = {"parameters": "parameters (M)", "macs": "FLOPs (G)"}
GAP, NOT_RUN = "–", "not run"
KEYS = ["variant", "feature"]


@dataclass(repr=False)
class Table:
    """Numbers and how they are shown.

    Attributes:
        numbers: a row per method and feature; columns (group, measure), in percent, millions and giga; text: group "".
        spread: standard deviations over the seeds, in the columns that have one.
        missing: (rows,) how many seeds are missing of each row of ours; NaN where there is none of ours.
        caption, notes: what the numbers are from, and remarks on the paper's.
    """

    numbers: pd.DataFrame
    spread: pd.DataFrame
    missing: pd.Series
    caption: str
    notes: tuple[str, ...] = ()

    def cells(self) -> pd.DataFrame:
        """The table as text, the best two of each column of accuracies marked."""
        return pd.DataFrame({column: self._texts(column) for column in self.numbers}, index=self.numbers.index)

    def _texts(self, column: tuple[str, str]) -> list[str]:
        group, measure = column
        values = self.numbers[column]
        if not group:
            return values.astype(str).tolist()
        best = sorted(values.round(1).dropna().unique(), reverse=True)[:2] if measure in ACCURACY else []
        marks = dict(zip(best, ("<b>{}</b>", "<u>{}</u>"), strict=True)) if len(best) == 2 else {}  # one is no best
        ours, sign = group.startswith("Ours"), "+" * measure.startswith("Δ")
        digits = 3 if ours and measure in COSTS.values() and values.max() < 10 else 1
        texts = []
        for row, (value, rounded) in enumerate(zip(values, values.round(1), strict=True)):
            missing = ours and measure in ACCURACY and self.missing.iloc[row] > 0
            if math.isnan(value):
                texts.append(NOT_RUN if missing else "" if ours or sign else GAP)
                continue
            text = f"{value:{sign}.{digits}f}"
            text = text.lstrip("+-") if float(text) == 0 else text
            deviation = self.spread[column].iloc[row] if column in self.spread else math.nan
            text += "" if math.isnan(deviation) else f" ± {deviation:.1f}"
            text += f" ({self.missing.iloc[row]:.0f} {NOT_RUN})" if missing else ""
            texts.append(marks.get(rounded, "{}").format(text))
        return texts

    def _repr_html_(self) -> str:
        text = "<br>".join(html.escape(line) for line in (self.caption, *self.notes))
        table = self.cells().to_html(escape=False, justify="center")
        return f'<div style="white-space: nowrap; overflow-x: auto">\n{table}\n</div>\n<p>{text}</p>'

    def markdown(self) -> str:
        """The table in GitHub's Markdown, its caption below."""
        cells = self.cells()
        names, heads = list(cells.index.names), [_head(column) for column in cells]
        rows = [[*names, *heads], ["---"] * len(names) + ["---:" if group else "---" for group, _ in cells]]
        rows += cells.set_axis(heads, axis=1).reset_index().to_numpy().tolist()
        lines = [" | ".join(["", *(cell.replace("|", r"\|") for cell in row), ""]).strip() for row in rows]
        text = "\n".join([*lines, "", self.caption, "", *(f"- {note}" for note in self.notes)])
        return text.replace("*", r"\*").rstrip() + "\n"

    __repr__ = markdown


def _head(column: tuple[str, str]) -> str:
    return ": ".join(filter(None, column))


def comparison(name: str, setting: Setting, features: Sequence[str] | None = None, costs: bool = False) -> Table:
    """An experiment's table: the paper's columns, then ours, each with its difference from the base row.

    Args:
        features: which; by default those that the experiment shows.
        costs: parameters and multiply-adds too, at the paper's scale; of one HTM where the paper counts one.
    """
    measured = compare.frame(name, setting, features)
    ours, theirs = compare.titles(name, setting)
    first = measured.drop_duplicates([*KEYS, "metric"])  # the paper's numbers are the same beside every seed
    printed = compare.published() if name == "table1" else _accuracies(first, "paper", theirs, BASES[name])[0]
    index = printed.index
    means, spread = (each.reindex(index) for each in _accuracies(measured, "ours", ours, BASES[name]))
    parts = [printed.dropna(axis=1, how="all"), means]
    if costs:
        counted = compare.costs([name]).set_index("name")
        one = ", one HTM" if "one HTM" in set(counted["counts"]) else ""
        counted = counted.reindex(index.get_level_values("variant")).set_axis(index)
        for place, group, prefix in ((1, "Paper", "paper_"), (3, "Ours, at the paper's scale", "")):
            columns = {(group + one, label): counted[prefix + key] for key, label in COSTS.items()}
            parts.insert(place, pd.DataFrame(columns).dropna(axis=1, how="all"))
    missing = measured[measured["metric"] == "mAP"].groupby(KEYS)["missing"].sum().reindex(index)
    numbers = (part.set_axis(_labels(name, index)) for part in (pd.concat(parts, axis=1), spread, missing))
    return Table(*numbers, _caption(name, setting, measured), _notes(name, setting, measured))


def _accuracies(measured: pd.DataFrame, side: str, group: str, base: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Means and deviations over the seeds, of the accuracies and of their differences from the base row.

    A difference is taken seed by seed, over the seeds that both rows have, from the base's row of the same feature.
    """
    index = pd.MultiIndex.from_frame(measured[KEYS].drop_duplicates())
    names, features = (index.get_level_values(key) for key in KEYS)
    values = measured.pivot(index=KEYS, columns=["metric", "seed"], values=side).reindex(index)
    reference = values[names == base].droplevel("variant").reindex(features).set_axis(index)
    less = (values - reference)[names != base].reindex(index).rename(columns="Δ {}".format, level="metric")
    both = pd.concat({group: pd.concat([values, less], axis=1)}, axis=1).T.groupby(level=[0, 1], sort=False)
    return both.mean().T, both.std().T


def _labels(name: str, index: pd.MultiIndex) -> pd.Index:
    """The rows' names: the variant and, where several features are shown, the feature in words."""
    if set(index.get_level_values("feature")) == {"all"}:
        return index.droplevel("feature").rename("method" if name == "table1" else "variant")
    own = {variant.name: features_of(variant.config)[0] for variant in variants(name)
           if len(features_of(variant.config)) == 2}  # a branch alone has one feature  # fmt: skip
    return pd.MultiIndex.from_tuples([(row, LABELS[own.get(row, feature)]) for row, feature in index], names=KEYS)


def _caption(name: str, setting: Setting, measured: pd.DataFrame) -> str:
    """Where the numbers come from: profile, data, seeds, commit, device, and what is missing."""
    runs = measured.drop_duplicates("fingerprint")
    done, data, seeds = runs[~runs["missing"]], setting.data, ", ".join(map(str, setting.seeds))
    seeds = f"seeds {seeds} (mean ± standard deviation)" if len(setting.seeds) > 1 else f"seed {seeds}"
    version, device, commit = (", ".join(sorted(set(done[key]) - {""})) for key in ("version", "device", "commit"))
    text = (
        f"{paper.TITLES.get(name, name)}. Ours: profile {setting.profile.name}, data {DATASETS[data.name]} "
        f"{version or data.version}, {seeds}, commit {commit or 'none yet'}, device {device or 'none yet'}; percent, "
        f"at the last epoch. Δ: difference from the row {BASES[name]}."
    )
    if setting.profile.name != "paper" or compare.papers_dataset(name, data.name) != data.name:
        text += " The two sides differ in data or scale: compare orders and signs, not values."
    return text + (f" {len(runs) - len(done)} of {len(runs)} runs are missing." if len(done) < len(runs) else "")


def _notes(name: str, setting: Setting, measured: pd.DataFrame) -> tuple[str, ...]:
    """What a reader of the paper's columns must know: what is misprinted, lost, or plotted and not printed."""
    found, dataset = {}, compare.papers_dataset(name, setting.data.name)
    for row in paper.table(name).to_dict("records") if name in paper.TABLES else ():
        if name != "table1" and (row["dataset"] != dataset or row["feature"] not in set(measured["feature"])):
            continue
        of = (row["variant"] or row["method"]) + (f", {DATASETS[row['dataset']]}" if name == "table1" else "")
        for part in row["note"].split("; "):
            if part.startswith(("misprint", "lost", "printed", "plotted")):
                found.setdefault(part, {})[of] = None
    return tuple(f"{', '.join(of)}: {part}" for part, of in found.items())


def save(table: Table, path: str | Path) -> Table:
    """Writes `<path>.md` and `<path>.csv`; returns the table, so that a cell which ends in `save(...)` shows it."""
    with atomic_write(f"{path}.md") as temporary:
        temporary.write_text(table.markdown(), encoding="utf-8")
    with atomic_write(f"{path}.csv") as temporary:
        spread = table.spread.dropna(axis=1, how="all")
        flat = pd.concat([table.numbers, spread], axis=1)
        flat.columns = [*map(_head, table.numbers), *(f"{_head(column)} std" for column in spread)]
        flat.assign(caption=table.caption).to_csv(temporary, float_format="%.4f")
    return table
