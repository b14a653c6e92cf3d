"""Tables for people: the paper's columns and ours beside them, never in one column.

The best of a column of the paper is bold and the second best underlined, by tags, because code
hosts leave these in where they strip styles. In our columns nothing is marked: most of the leads
there are not decided. A missing run is a visible gap.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..config import DATASETS, LABELS
from ..files import atomic_write, write_text
from . import numbers as paper
from . import recorded
from .compare import BASES, Results, costs, features_of
from .experiments import CONFIGURATIONS, changes
from .numbers import ACCURACY

GAP = "–"
NOT_RUN = "not run"
KEYS = ["variant", "feature"]


@dataclass(repr=False)
class Table:
    """Numbers and how they are shown.

    Attributes:
        numbers: a row per method and feature; columns (group, measure), in percent and points.
            Columns of the group "" are text.
        spread: what stands behind ±, in columns of `numbers`: half the interval of a recorded
            difference, the standard deviation of own runs over their seeds.
        missing: how many seeds of the own run are missing, by row; NaN for other people's methods.
        caption: where the numbers come from.
        notes: on the paper's numbers, and whether the own runs are as the recorded ones.
    """

    numbers: pd.DataFrame
    spread: pd.DataFrame
    missing: pd.Series
    caption: str
    notes: list[str]

    def cells(self) -> pd.DataFrame:
        """The table as text, the best two of each accuracy of the paper marked."""
        texts = {column: self._texts(*column) for column in self.numbers}
        return pd.DataFrame(texts)

    def _texts(self, group: str, measure: str) -> pd.Series:
        values = self.numbers[group, measure]
        if not group:
            return values.astype(str)
        if measure == "runs":
            return _format(values, "{:.0f}")
        spread = ""
        if (group, measure) in self.spread:
            spread = _format(self.spread[group, measure], " ± {:.1f}")
        if measure not in ACCURACY:
            return _format(values, "{:+.1f}").replace(["+0.0", "-0.0"], "0.0") + spread

        texts = _format(values, "{:.1f}")
        gaps = _format(self.missing, "not recorded")
        if group.startswith("Paper"):
            best = sorted(set(texts) - {""}, key=float)[-2:]
            if len(best) == 2:  # a single number is not the best of anything
                second, first = best
                texts = texts.replace({second: f"<u>{second}</u>", first: f"<b>{first}</b>"})
            gaps = GAP
        texts += spread
        if group.startswith("Own"):
            missing = self.missing.where(self.missing > 0)
            texts += _format(missing, f" ({{:.0f}} {NOT_RUN})")
            gaps = _format(missing, NOT_RUN)
        return texts.where(values.notna(), gaps)

    def _repr_html_(self) -> str:
        text = "<br>".join(html.escape(line) for line in (self.caption, *self.notes))
        table = self.cells().to_html(escape=False, justify="center")
        style = "white-space: nowrap; overflow-x: auto"
        return f'<div style="{style}">\n{table}\n</div>\n<p>{text}</p>'

    def markdown(self) -> str:
        """The table in GitHub's Markdown, with its caption and notes below."""
        cells = self.cells()
        rules = ["---"] * cells.index.nlevels
        rules += ["---:" if group else "---" for group, _ in cells]
        cells = _with_flat_heads(cells).reset_index()
        lines = []
        for row in ([*cells], rules, *cells.to_numpy().tolist()):
            escaped = [cell.replace("|", r"\|") for cell in row]
            lines.append("| " + " | ".join(escaped) + " |")
        lines += ["", self.caption, "", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines).replace("*", r"\*").rstrip() + "\n"

    __repr__ = markdown


def _format(values: pd.Series, pattern: str) -> pd.Series:
    """Numbers as text, "" for NaN."""
    return values.map(pattern.format).where(values.notna(), "")


def _with_flat_heads(frame: pd.DataFrame, suffix: str = "") -> pd.DataFrame:
    """Columns (group, measure) as "group: measure"."""
    heads = [": ".join(filter(None, column)) + suffix for column in frame]
    return frame.set_axis(heads, axis=1)


def comparison(results: Results, name: str, features: Sequence[str] | None = None) -> Table:
    """An experiment's table: columns of the paper, of each recorded source, and of the own run.

    Beside each mAP is its difference from the reference row. `features` are by default those
    that the experiment shows. A source without any run of the experiment has no columns.
    """
    rows = results.shown(name, features)
    titles = results.titles
    index = pd.MultiIndex.from_frame(rows[KEYS].drop_duplicates())
    numbers = {}
    spread = {}
    if name == "table1":
        del titles["paper"]  # in what is published
        published = _published()
        index = published.index
        numbers = dict(published.items())
    rows = rows.assign(half=(rows["high"] - rows["low"]) / 2)
    wide = rows.pivot(index=KEYS, columns=["source", "metric"]).reindex(index).sort_index(axis=1)
    for source, title in titles.items():
        if source != "own" and wide["value", source].isna().all(axis=None):
            continue  # nothing of it is recorded, or the paper has no such table
        numbers[title, "mAP"] = wide["value", source, "mAP"]
        numbers[title, "Δ mAP"] = wide["difference", source, "mAP"]
        spread[title, "Δ mAP"] = wide["half", source, "mAP"]
        numbers[title, "rank-1"] = wide["value", source, "rank-1"]
        if source in recorded.SOURCES:
            runs = wide["runs", source, "mAP"]
            numbers[title, "runs"] = runs.where(runs > 0)
        for metric in ACCURACY:
            spread[title, metric] = wide["std", source, metric]
    labels = _labels(results, name, index)
    return Table(
        pd.DataFrame(numbers).set_axis(labels),
        pd.DataFrame(spread).set_axis(labels),
        wide["missing", "own", "mAP"].set_axis(labels),
        _caption(results, name),
        _notes(results, name, set(rows["feature"])) + _check(results, name),
    )


def _published() -> pd.DataFrame:
    """Table I as printed, other methods too, by (variant, feature); columns (group, measure)."""
    table = paper.table("table1")
    larger = table["resolution"].map({"384x128": " ↑"}).fillna("")
    is_ours = table["variant"] != ""
    table["variant"] = table["variant"].where(is_ours, table["method"] + larger)
    table["backbone"] += table["overlap"].map({"yes": "*"}).fillna("")
    rows = table.set_index(KEYS)
    parts = {"": rows.groupby(KEYS, sort=False)[["backbone", "pattern"]].first()}
    for dataset, part in rows.groupby("dataset", sort=False):
        parts[f"Paper, {DATASETS[dataset]}"] = part[[*ACCURACY]]
    return pd.concat(parts, axis=1)


def _labels(results: Results, name: str, index: pd.MultiIndex) -> pd.Index:
    """The names of rows: the variant and, if several features are shown, the feature in words."""
    if set(index.get_level_values("feature")) == {"all"}:
        names = index.droplevel("feature").map(results.label)
        return names.rename("method" if name == "table1" else "variant")
    labels = []
    for variant, feature in index:
        features = features_of(CONFIGURATIONS[name][variant])
        if len(features) == 2:
            feature = features[0]  # a branch alone has one feature, which is "all" too
        labels.append((results.label(variant), LABELS[feature]))
    return pd.MultiIndex.from_tuples(labels, names=index.names)


def _caption(results: Results, name: str) -> str:
    """Where the numbers come from: seeds, people, data, commit, device, and what is missing."""
    profile = results.setting.profile
    data = results.setting.data
    seeds = results.setting.seeds
    runs = results.runs.query("experiment == @name").drop_duplicates(["variant", "seed"])
    done = runs["result"].dropna()
    commits = recorded.listed(result["commit"] for result in done)
    devices = recorded.listed(result["device"] for result in done)
    versions = recorded.listed(result["data"]["version"] for result in done)
    own = f"seed {seeds[0]}"
    if len(seeds) > 1:
        own = f"seeds {', '.join(map(str, seeds))} (mean ± standard deviation)"
    sentences = [
        f"{paper.TITLES[name]}; percent, at the last epoch.",
        f"Δ: difference from the row {BASES[name]}; ± is half the width of its 95 % interval over "
        "seeds and people.",
        f"A recorded row shows the mean of all runs of {BASES[name]}, plus Δ over the runs that "
        "both rows share; rank-1 likewise.",
        *(
            f"Recorded, {source} people: {recorded.about(runs[source])}."
            for source in recorded.SOURCES
        ),
        f"Own run: profile {profile.name}, data {DATASETS[data.name]} "
        f"{versions or data.version}, {own}, commit {commits or 'none yet'}, "
        f"device {devices or 'none yet'}.",
    ]
    if profile.backbones or results.papers != data.name:
        sentences.append(
            "Paper and ours differ in data or scale: compare the signs of differences, not values."
        )
    if len(done) < len(runs):
        sentences.append(f"{len(runs) - len(done)} of {len(runs)} own runs are missing.")
    return " ".join(sentences)


def _notes(results: Results, name: str, features: set[str]) -> list[str]:
    """What to know of the paper's columns: what is misprinted, lost, or plotted, not printed."""
    rows_by_note = {}
    for row in paper.table(name).to_dict("records"):
        label = row["variant"] or row["method"]
        if name == "table1":
            label += f", {DATASETS[row['dataset']]}"
        elif row["dataset"] != results.papers or row["feature"] not in features:
            continue
        for note in row["note"].split("; "):
            if note.startswith(("misprint", "lost", "printed", "plotted")):
                rows_by_note.setdefault(note, {})[label] = None
    return [f"{', '.join(rows)}: {note}" for note, rows in rows_by_note.items()]


def _check(results: Results, name: str) -> list[str]:
    """How own runs compare with the recorded ones of the same data set and draw, if there are any.

    A run may have the recorded numbers: it is the recorded one, or was made on such a machine. Any
    other run is held against the interval in which 95 % of new training seeds lie.
    """
    done = results.runs.query(
        "experiment == @name and feature == 'all' and metric == 'mAP' and not missing"
    )
    known = recorded.archive().rows.query("feature == 'all'").set_index("run")["mAP"]
    equal = 0
    inside = 0
    outside = []
    for row in done.itertuples():
        run = results.setting.run(CONFIGURATIONS[name][row.variant], row.seed)
        low, high = recorded.expected(recorded.configuration(run), run.data.seed)
        if abs(known.get(run.fingerprint, math.nan) - row.own) < 0.001:
            equal += 1
        elif low <= row.own <= high:
            inside += 1
        elif not math.isnan(low):
            label = results.label(row.variant)
            outside.append(f"{label} {row.own:.1f} ({low:.1f} to {high:.1f})")
    notes = []
    if equal:
        notes.append(f"{equal} own runs have exactly the recorded numbers")
    if inside or outside:
        found = (
            f"of {inside + len(outside)} own runs that differ from the recorded ones, {inside} lie "
            "where 95 % of new seeds of all rows would"
        )
        if outside:
            found += f"; outside: {', '.join(outside)}"
        notes.append(found)
    return notes


def switched(name: str) -> pd.DataFrame:
    """What each row of an experiment switches, and costs, at the paper's scale in every profile.

    Returns a row per variant: the fields that differ from PAPER, the parameters and the
    multiply-adds, with the paper's in brackets.
    """
    counted = costs([name]).set_index("name")
    unit = "one HTM: " if counted["counts"].iloc[0] == "one HTM" else ""
    differs = [changes(config) or "nothing" for config in CONFIGURATIONS[name].values()]
    columns = {"differs from PAPER in": differs}
    for cost, label in (("parameters", "parameters (M)"), ("macs", "multiply-adds (G)")):
        printed = _format(counted[f"paper_{cost}"], " ({:.1f})")
        columns[unit + label] = counted[cost].map("{:.2f}".format) + printed
    return pd.DataFrame(columns).rename_axis("row")


def save(table: Table, path: str | Path) -> Table:
    """Writes `<path>.md` and `<path>.csv`.

    Returns the table, so that a notebook's cell that ends in `save(...)` shows it.
    """
    write_text(f"{path}.md", table.markdown())
    numbers = _with_flat_heads(table.numbers)
    spread = _with_flat_heads(table.spread.dropna(axis=1, how="all"), " ±")
    with atomic_write(f"{path}.csv") as temporary:
        rows = pd.concat([numbers, spread], axis=1).assign(caption=table.caption)
        rows.to_csv(temporary, float_format="%.4f")
    return table
