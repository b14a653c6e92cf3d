"""Tables that people can read: the paper's columns, ours beside them, never a number of each in one column.

The best of a column is bold and the second best underlined, by tags in the cells, which code hosts leave in where they
strip styles. The caption says profile, data, seeds, commit and device; a missing run is a visible gap.
"""

from __future__ import annotations

import hashlib
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ..config import DataConfig, ModelConfig, Profile
from ..config import profile as find_profile
from ..files import atomic_write
from . import numbers as paper
from . import results
from .experiments import variants

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
}
DATASETS = {"market1501": "Market1501", "dukemtmc": "DukeMTMC", "msmt17": "MSMT17", "synthetic": "synthetic"}
SYMBOLS = {
    "cnn": "f_c",
    "transformer": "f_t",
    "cnn_refined": "f'_c,0",
    "transformer_refined": "f'_t,0",
    "cnn_fused": "f'_c,L",
    "transformer_fused": "f'_t,L",
    "all": "f_a",
}
ACCURACY = ("mAP", "rank-1")
COSTS = ("parameters (M)", "FLOPs (G)")
GAP, NOT_RUN = "–", "not run"


@dataclass(repr=False)
class Table:
    """Numbers and how they are shown.

    Attributes:
        numbers: a row per method and feature; columns (group, measure), in percent, millions and giga; text columns
            have the group "".
        spread: standard deviations over the seeds; like `numbers`, NaN where there is none.
        missing: (rows,) how many seeds are missing of each row of ours; NaN where there is none of ours.
        caption: what the numbers are from.
        notes: remarks on the paper's numbers.
    """

    numbers: pd.DataFrame
    spread: pd.DataFrame
    missing: pd.Series
    caption: str
    notes: tuple[str, ...] = ()

    def cells(self, bold: str = "<b>{}</b>", underline: str = "<u>{}</u>") -> pd.DataFrame:
        """The table as text, the best two of each column of accuracies marked."""
        shown = {column: self._texts(column, bold, underline) for column in self.numbers.columns}
        return pd.DataFrame(shown, index=self.numbers.index)

    def _texts(self, column: tuple[str, str], bold: str, underline: str) -> list[str]:
        group, measure = column
        values = self.numbers[column]
        if not group:
            return values.astype(str).tolist()
        rounded = values.round(1)
        best = sorted(rounded.dropna().unique(), reverse=True)[:2] if measure in ACCURACY else []
        best = best if len(best) > 1 else []  # one number, or one number everywhere, is not the best of anything
        digits = 3 if measure in COSTS and group.startswith("Ours") and values.max() < 10 else 1
        form = f"{'+' if measure.startswith('Δ') else ''}.{digits}f"
        texts = []
        for row, value in enumerate(values):
            if math.isnan(value):
                missing = group.startswith("Ours") and self.missing.iloc[row] > 0
                absent = GAP if group.startswith("Paper") and not measure.startswith("Δ") else ""
                texts.append(NOT_RUN if missing and measure in ACCURACY else absent)
                continue
            text = f"{value:{form}}"
            text = text.lstrip("+-") if float(text) == 0 else text
            deviation = self.spread[column].iloc[row] if column in self.spread else math.nan
            text += "" if math.isnan(deviation) else f" ± {deviation:.1f}"
            if group.startswith("Ours") and measure in ACCURACY and self.missing.iloc[row] > 0:
                text += f" ({self.missing.iloc[row]:.0f} {NOT_RUN})"
            place = best.index(rounded.iloc[row]) if rounded.iloc[row] in best else None
            texts.append([bold, underline][place].format(text) if place is not None else text)
        return texts

    def show(self):
        """The table for a notebook: a pandas Styler."""
        cells = self.cells()
        cells.columns = pd.MultiIndex.from_tuples(cells.columns)
        text = "<br>".join(html.escape(line) for line in (self.caption, *self.notes))
        styles = [
            {"selector": "caption", "props": "caption-side: bottom; text-align: left; padding-top: 0.6em"},
            {"selector": "th.col_heading", "props": "text-align: center"},
            {"selector": "th.row_heading", "props": "text-align: left; font-weight: normal; vertical-align: top"},
            {"selector": "td", "props": "text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap"},
        ]
        for place in range(1, len(cells.columns)):
            if cells.columns[place][0] != cells.columns[place - 1][0]:
                styles.append({"selector": f".col{place}", "props": "border-left: 1px solid #999; padding-left: 1em"})
        same = hashlib.sha256(text.encode()).hexdigest()[:5]  # not a random id: the same table is the same notebook
        return cells.style.set_uuid(same).set_caption(text).set_table_styles(styles)

    def _repr_html_(self) -> str:
        return self.show().to_html()

    def __repr__(self) -> str:
        return self.markdown()

    def markdown(self) -> str:
        """The table in GitHub's Markdown, its caption below."""
        cells = self.cells("**{}**")
        names = [str(name) for name in cells.index.names]
        heads = names + [f"{group}: {measure}" if group else measure for group, measure in cells.columns]
        indices = [index if isinstance(index, tuple) else (index,) for index in cells.index]
        lines = [heads, ["---"] * len(names) + ["---:" if group else "---" for group, _ in cells.columns]]
        lines += [[*map(str, index), *row] for index, row in zip(indices, cells.to_numpy().tolist(), strict=True)]
        text = "\n".join(f"| {' | '.join(_escape(cell) for cell in line)} |" for line in lines)
        notes = "\n".join(f"- {_escape(note)}" for note in self.notes)
        return "\n\n".join(part for part in (text, _escape(self.caption), notes) if part) + "\n"

    def flat(self) -> pd.DataFrame:
        """The numbers with one level of columns, deviations beside their means, and the caption in each row."""
        columns = {}
        for column in self.numbers.columns:
            name = f"{column[0]}: {column[1]}" if column[0] else column[1]
            columns[name] = self.numbers[column]
            if column in self.spread and self.spread[column].notna().any():
                columns[f"{name} std"] = self.spread[column]
        return pd.DataFrame(columns, index=self.numbers.index).reset_index().assign(caption=self.caption)


def _escape(text: str) -> str:
    """Markdown's text: an asterisk that is not bold type is one, and no cell ends early."""
    bold = text.startswith("**") and text.endswith("**") and len(text) > 4
    inner = (text[2:-2] if bold else text).replace("*", r"\*").replace("|", r"\|")
    return f"**{inner}**" if bold else inner


def comparison(
    name: str,
    profile: str | Profile = "demo",
    *,
    dataset: str | DataConfig | None = None,
    seeds: Sequence[int] = (0,),
    runs_root: str | Path | None = None,
    features: Sequence[str] | None = None,
    costs: str | None = None,
) -> Table:
    """An experiment's table: the paper's columns, then ours, each with its difference from the base row.

    Args:
        name: "table1" to "table6", "figure5" or "figure6".
        dataset, seeds, runs_root, features: as those of `results.rows`.
        costs: our parameters and multiply-adds too: of the models as they were run ("profile"), or at the paper's scale
            ("paper"); of one HTM where the paper counts one.
    """
    scale = find_profile(profile)
    seeds, shown = tuple(seeds), tuple(features or results.SHOWN.get(name, ("all",)))
    measured = results.rows(name, profile, dataset=dataset, seeds=seeds, runs_root=runs_root, features=shown)
    ours = results.summarise(measured).set_index(["variant", "feature"])
    theirs, base = _paper_columns(name), BASES[name]
    order = list(dict.fromkeys([*theirs.index.get_level_values("variant"), *ours.index.get_level_values("variant")]))
    rows = [row for row in dict.fromkeys([*theirs.index, *ours.index]) if row[1] in shown]
    rows.sort(key=lambda row: (order.index(row[0]), shown.index(row[1])))
    index = pd.MultiIndex.from_tuples(rows, names=["method" if name == "table1" else "variant", "feature"])
    numbers, spread = theirs.reindex(index), pd.DataFrame(index=index)
    data = results.data_of(scale, dataset)
    group = f"Ours, {DATASETS[data.name]} ({scale.name})"
    for metric in ACCURACY:
        numbers[(group, metric)] = ours[metric].reindex(index)
        spread[(group, metric)] = ours[f"{metric}_std"].reindex(index)
    for metric in ACCURACY:
        difference = _paired_difference(measured, metric, base)
        numbers[(group, f"Δ {metric}")] = difference["mean"].reindex(index)
        spread[(group, f"Δ {metric}")] = difference["std"].reindex(index)
    if costs:
        measured_costs = _measured_costs(name, None if costs == "paper" else scale).reindex(index)
        costs_group = "Ours, at the paper's scale" if costs == "paper" else group
        costs_group += ", one HTM" if name in ("table3", "table4") else ""
        for label in COSTS:
            numbers[(costs_group, label)] = measured_costs[label]
    if set(shown) == {"all"}:
        numbers.index = spread.index = index.droplevel("feature")
    else:
        alone = {variant.name for variant in variants(name) if len(results.features_of(variant.config)) == 2}
        labels = [(row[0], "f" if row[0] in alone else f"{row[1]}, {SYMBOLS[row[1]]}") for row in rows]
        numbers.index = spread.index = pd.MultiIndex.from_tuples(labels, names=index.names)
    absent = ours["missing"].reindex(index).set_axis(numbers.index)
    return Table(numbers, spread, absent, caption(name, scale.name, data, seeds, measured), _notes(name))


def _paper_columns(name: str) -> pd.DataFrame:
    """What the paper prints, by variant (or method) and feature; columns (group, measure)."""
    frame = paper.table(name)
    arrows = frame["resolution"].map({"384x128": " ↑"}).fillna("")
    frame["variant"] = frame["variant"].where(frame["variant"] != "", frame["method"] + arrows)
    columns, keys = {}, ["variant", "feature"]
    if name == "table1":
        stars = frame["overlap"].map({"yes": "*"}).fillna("")
        words = frame.assign(backbone=frame["backbone"] + stars).groupby(keys, sort=False)
        columns |= {("", word): words[word].first() for word in ("backbone", "pattern")}
    for dataset in frame["dataset"].unique():
        part = frame[frame["dataset"] == dataset].set_index(keys)
        group = f"Paper, {DATASETS[dataset]}"
        for metric in ACCURACY:
            columns[(group, metric)] = part[metric]
        for metric in ACCURACY if name != "table1" else ():
            difference = _difference(part[metric], BASES[name])
            columns |= {(group, f"Δ {metric}"): difference} if difference.notna().any() else {}
        for cost, label in zip(("parameters", "FLOPs"), COSTS, strict=True):
            if part[cost].notna().any():
                one = ", one HTM" if (part["counts"] == "one HTM").all() else ""
                columns[(f"Paper{one}" if one else group, label)] = part[cost]
    return pd.DataFrame(columns)


def _difference(values: pd.Series, base: str) -> pd.Series:
    """Each row less the base's row of the same feature; NaN in the base's own."""
    less = [value - values.get((base, feature), math.nan) for (_, feature), value in values.items()]
    return pd.Series(less, index=values.index, dtype=float).where(values.index.get_level_values(0) != base)


def _paired_difference(measured: pd.DataFrame, metric: str, base: str) -> pd.DataFrame:
    """The mean and deviation, over the seeds that both have, of each row less the base's row of the same seed."""
    by_seed = measured.pivot(index=["variant", "feature"], columns="seed", values=metric)
    less = by_seed.apply(_difference, base=base)
    return pd.DataFrame({"mean": less.mean(axis=1), "std": less.std(axis=1, ddof=1)})


def _measured_costs(name: str, scale: Profile | None) -> pd.DataFrame:
    """Millions of parameters and giga multiply-adds of each variant, by variant and feature (the same for each)."""
    from ..models.cost import measure

    def cost(config: ModelConfig):
        found = measure(scale.scale(config) if scale else config)
        return found.parameters / 1e6, found.macs / 1e9

    rows = {}
    for variant in variants(name):
        config = variant.config
        total = cost(config)
        if name in ("table3", "table4"):
            without = cost(replace(config, fusion=replace(config.fusion, units=())))
            total = tuple((whole - rest) / config.fusion.depth for whole, rest in zip(total, without, strict=True))
        for feature in results.features_of(config):
            rows[(variant.name, feature)] = total
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(COSTS)).pipe(
        lambda frame: frame.set_index(pd.MultiIndex.from_tuples(frame.index, names=["variant", "feature"]))
    )


def caption(name: str, profile: str, data: DataConfig, seeds: Sequence[int], measured: pd.DataFrame) -> str:
    """Where the numbers come from: profile, data, seeds, commit, device, and what is missing."""
    done = measured.dropna(subset=["mAP"])
    versions = ", ".join(sorted({str(version) for version in done["version"] if version}))
    devices = ", ".join(sorted({str(device) for device in done["device"] if device})) or "none yet"
    commits = ", ".join(sorted({str(commit) for commit in done["commit"] if commit})) or "none"
    source = DATASETS[data.name] + (f" {versions}" if versions else "")
    over = f"seeds {', '.join(map(str, seeds))} (mean ± standard deviation)" if len(seeds) > 1 else f"seed {seeds[0]}"
    absent = measured["fingerprint"].nunique() - done["fingerprint"].nunique()
    gap = f" {absent} of {measured['fingerprint'].nunique()} runs are missing." if absent else ""
    alike = profile == "paper" and data.name in set(paper.table(name)["dataset"])
    other = "" if alike else " The two sides differ in data or scale: compare orders and signs, not values."
    return (
        f"{paper.TITLES[name]}. Ours: profile {profile}, data {source}, {over}, commit {commits}, "
        f"device {devices}; percent, at the last epoch. Δ: from the row {BASES[name]}.{other}{gap}"
    )


def _notes(name: str) -> tuple[str, ...]:
    """The remarks that a reader of the paper's columns needs: what is misprinted and what is lost."""
    found = []
    for row in paper.table(name).to_dict("records"):
        of = row["variant"] or row["method"]
        of += f", {DATASETS[row['dataset']]}" if name == "table1" else ""
        found += [f"{of}: {part}" for part in row["note"].split("; ") if part.startswith(("misprint", "lost"))]
    return tuple(dict.fromkeys(found))


def save(table: Table, path: str | Path) -> Table:
    """Writes `<path>.md` and `<path>.csv`; returns the table, so that a cell which ends in `save(...)` shows it."""
    path = Path(path)
    with atomic_write(path.with_name(f"{path.name}.md")) as temporary:
        temporary.write_text(table.markdown(), encoding="utf-8")
    with atomic_write(path.with_name(f"{path.name}.csv")) as temporary:
        table.flat().to_csv(temporary, index=False, float_format="%.4f")
    return table
