"""Tables that people can read: the paper's columns, ours beside them, never a number of each in one column.

The best of a column is bold and the second best underlined, by tags, which code hosts leave in where they strip styles.
A missing run is a visible gap.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..config import DATASETS, LABELS
from ..files import atomic_write
from . import compare, recorded
from . import numbers as paper
from .compare import ACCURACY, BASES, features_of
from .experiments import Setting, changes, variants

GAP, NOT_RUN = "–", "not run"
KEYS = ["variant", "feature"]


@dataclass(repr=False)
class Table:
    """Numbers and how they are shown."""

    numbers: (
        pd.DataFrame
    )  # a row per method and feature; columns (group, measure), percent and points; text: group ""
    spread: (
        pd.DataFrame
    )  # behind ±: of a recorded difference half of its 95 % interval, of own runs the deviation
    missing: (
        pd.Series
    )  # (rows,) how many seeds of the own run are missing; NaN where the row is other people's
    caption: str  # what the numbers are from
    notes: tuple[str, ...] = ()  # on the paper's numbers

    def cells(self) -> pd.DataFrame:
        """The table as text, the best two of each column of accuracies marked."""
        return pd.DataFrame(
            {column: self._texts(column) for column in self.numbers}, index=self.numbers.index
        )

    def _texts(self, column: tuple[str, str]) -> list[str]:
        group, measure = column
        values = self.numbers[column]
        if not group:
            return values.astype(str).tolist()
        best = (
            sorted(values.round(1).dropna().unique(), reverse=True)[:2]
            if measure in ACCURACY
            else []
        )
        marks = (
            dict(zip(best, ("<b>{}</b>", "<u>{}</u>"), strict=True)) if len(best) == 2 else {}
        )  # one is no best
        own, sign = group.startswith("Own"), "+" * measure.startswith("Δ")
        texts = []
        for row, (value, rounded) in enumerate(zip(values, values.round(1), strict=True)):
            missing = own and measure in ACCURACY and self.missing.iloc[row] > 0
            if math.isnan(value):
                texts.append(
                    NOT_RUN if missing else GAP if group.startswith("Paper") and not sign else ""
                )
                continue
            text = f"{value:{sign}.1f}"
            text = text.lstrip("+-") if float(text) == 0 else text
            deviation = self.spread[column].iloc[row] if column in self.spread else math.nan
            text += "" if math.isnan(deviation) else f" ± {deviation:.1f}"
            text += f" ({self.missing.iloc[row]:.0f} {NOT_RUN})" if missing else ""
            texts.append(marks.get(rounded, "{}").format(text))
        return texts

    def _repr_html_(self) -> str:
        text = "<br>".join(html.escape(line) for line in (self.caption, *self.notes))
        table = self.cells().to_html(escape=False, justify="center")
        return (
            f'<div style="white-space: nowrap; overflow-x: auto">\n{table}\n</div>\n<p>{text}</p>'
        )

    def markdown(self) -> str:
        """The table in GitHub's Markdown, its caption below."""
        cells = self.cells()
        names, heads = list(cells.index.names), [_head(column) for column in cells]
        rows = [
            [*names, *heads],
            ["---"] * len(names) + ["---:" if group else "---" for group, _ in cells],
        ]
        rows += cells.set_axis(heads, axis=1).reset_index().to_numpy().tolist()
        lines = [
            " | ".join(["", *(cell.replace("|", r"\|") for cell in row), ""]).strip()
            for row in rows
        ]
        text = "\n".join([*lines, "", self.caption, "", *(f"- {note}" for note in self.notes)])
        return text.replace("*", r"\*").rstrip() + "\n"

    __repr__ = markdown


def _head(column: tuple[str, str]) -> str:
    return ": ".join(filter(None, column))


def comparison(name: str, setting: Setting, features: Sequence[str] | None = None) -> Table:
    """An experiment's table: the paper's columns, the recorded runs', each less the base row, and the reader's own run.

    `features` are by default those that the experiment shows.
    """
    found = compare.differences(name, setting, features)
    columns = [
        "paper",
        "recorded",
        "ours",
        "paper_less",
        "recorded_less",
        "ours_less",
        "std",
        "low",
        "high",
        "missing",
    ]
    wide = found.pivot(index=KEYS, columns="metric", values=columns)
    index = pd.MultiIndex.from_frame(found[KEYS].drop_duplicates())
    if name == "table1":
        printed = compare.published()
        index = printed.index
    wide, titles = wide.reindex(index), compare.titles(name, setting)
    anything = found["recorded"].notna().any()
    numbers, spread = {}, {}
    for side, title in titles.items():
        printed_apart = side == "paper" and (name == "table1" or name not in paper.TABLES)
        if printed_apart or (side == "recorded" and not anything):
            continue
        for metric in ACCURACY:
            numbers[title, metric] = wide[side, metric]
            if side != "ours" or not anything:
                numbers[title, f"Δ {metric}"] = wide[f"{side}_less", metric]
    for metric in ACCURACY:
        spread[titles["recorded"], f"Δ {metric}"] = (wide["high", metric] - wide["low", metric]) / 2
        spread[titles["ours"], metric] = wide["std", metric]
    numbers = pd.DataFrame(numbers).astype(float)
    if name == "table1":
        numbers = pd.concat([printed, numbers], axis=1)
    parts = (numbers, pd.DataFrame(spread).astype(float), wide["missing", "mAP"].astype(float))
    parts = (part.set_axis(_labels(name, index)) for part in parts)
    return Table(*parts, _caption(name, setting, found), _notes(name, setting, found))


def switched(name: str) -> pd.DataFrame:
    """What each row of an experiment switches, and costs, at the paper's scale: the same in every profile.

    Returns a row per variant: the fields that differ from PAPER, parameters and multiply-adds, the paper's in brackets.
    """
    counted = compare.costs([name])
    one = "one HTM: " if "one HTM" in set(counted["counts"]) else ""
    columns = {
        "differs from PAPER in": [
            changes(variant.config) or "nothing" for variant in variants(name)
        ]
    }
    for key, label in {"parameters": "parameters (M)", "macs": "multiply-adds (G)"}.items():
        printed = [f" ({value:.1f})" if value > 0 else "" for value in counted[f"paper_{key}"]]
        columns[one + label] = [
            f"{ours:.2f}{theirs}" for ours, theirs in zip(counted[key], printed, strict=True)
        ]
    return pd.DataFrame(columns, pd.Index(counted["name"], name="row"))


def _labels(name: str, index: pd.MultiIndex) -> pd.Index:
    """The rows' names: the variant and, where several features are shown, the feature in words."""
    if set(index.get_level_values("feature")) == {"all"}:
        return index.droplevel("feature").rename("method" if name == "table1" else "variant")
    own = {variant.name: features_of(variant.config)[0] for variant in variants(name)
           if len(features_of(variant.config)) == 2}  # a branch alone has one feature  # fmt: skip
    return pd.MultiIndex.from_tuples(
        [(row, LABELS[own.get(row, feature)]) for row, feature in index], names=KEYS
    )


def _caption(name: str, setting: Setting, found: pd.DataFrame) -> str:
    """Where the numbers come from: seeds, people, data, commit, device, and what is missing."""
    title = paper.TITLES.get(name, "The text and the code")
    data, seeds = setting.data, ", ".join(map(str, setting.seeds))
    seeds = (
        f"seeds {seeds} (mean ± standard deviation)" if len(setting.seeds) > 1 else f"seed {seeds}"
    )
    runs = compare.frame(name, setting, ("all",)).drop_duplicates("fingerprint")
    done = runs[~runs["missing"]]
    version, device, commit = (
        ", ".join(sorted(set(done[key]) - {""})) for key in ("version", "device", "commit")
    )
    text = (
        f"{title}; percent, at the last epoch. Δ: difference from the row {BASES[name]}, ± its "
        f"95 % interval over seeds and people. Recorded: {recorded.about(found['configuration'].unique())}. Own run: "
        f"profile {setting.profile.name}, data {DATASETS[data.name]} {version or data.version}, {seeds}, commit "
        f"{commit or 'none yet'}, device {device or 'none yet'}."
    )
    if setting.profile.name != "paper" or compare.papers_dataset(name, data.name) != data.name:
        text += " Paper and ours differ in data or scale: compare orders and signs, not values."
    return text + (
        f" {len(runs) - len(done)} of {len(runs)} own runs are missing."
        if len(done) < len(runs)
        else ""
    )


def _notes(name: str, setting: Setting, found: pd.DataFrame) -> tuple[str, ...]:
    """What a reader of the paper's columns must know: what is misprinted, lost, or plotted and not printed."""
    notes, dataset = {}, compare.papers_dataset(name, setting.data.name)
    for row in paper.table(name).to_dict("records") if name in paper.TABLES else ():
        if name != "table1" and (
            row["dataset"] != dataset or row["feature"] not in set(found["feature"])
        ):
            continue
        of = (row["variant"] or row["method"]) + (
            f", {DATASETS[row['dataset']]}" if name == "table1" else ""
        )
        for part in row["note"].split("; "):
            if part.startswith(("misprint", "lost", "printed", "plotted")):
                notes.setdefault(part, {})[of] = None
    return tuple(f"{', '.join(of)}: {part}" for part, of in notes.items())


def save(table: Table, path: str | Path) -> Table:
    """Writes `<path>.md` and `<path>.csv`; returns the table, so that a cell which ends in `save(...)` shows it."""
    with atomic_write(f"{path}.md") as temporary:
        temporary.write_text(table.markdown(), encoding="utf-8")
    with atomic_write(f"{path}.csv") as temporary:
        spread = table.spread.dropna(axis=1, how="all")
        flat = pd.concat([table.numbers, spread], axis=1)
        flat.columns = [*map(_head, table.numbers), *(f"{_head(column)} ±" for column in spread)]
        flat.assign(caption=table.caption).to_csv(temporary, float_format="%.4f")
    return table
