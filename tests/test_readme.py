"""The pages are right: their Python blocks run in order, and their commands and links exist."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pandas as pd
import pytest

from fusionreid import paths
from fusionreid.__main__ import parser
from fusionreid.config import FEATURES
from fusionreid.data.synthetic.build import build
from fusionreid.paper.claims import judge
from fusionreid.paper.compare import results
from fusionreid.paper.experiments import setting

MOST_WORDS = 860  # in the README, tables counted and code blocks not
MOST_WITH_MARKS = 960  # those of tables and lists, too
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    *sorted(f"docs/{path.name}" for path in (paths.ROOT / "docs").glob("*.md")),
]
TEXTS = {page: (paths.ROOT / page).read_text() for page in PAGES}
CODE = r"(?ms)^```.*?^```"


def blocks(page, language):
    """The fenced code blocks of a language, in order."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", TEXTS[page])


def links(page):
    """The files that a page links to, from its own folder."""
    found = set(re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", TEXTS[page]))
    return [(page, link) for link in sorted(found)]


@pytest.fixture
def run_blocks(tmp_path, monkeypatch):
    """Runs a page's blocks as from the repository's root, but with runs of its own."""
    build(paths.DATA, "smoke", 0)  # the pages show these people; it is quick if they are there
    (tmp_path / "data").symlink_to(paths.DATA)
    monkeypatch.chdir(tmp_path)

    def run(page):
        names = {"__name__": "page"}
        for number, block in enumerate(blocks(page, "python"), start=1):
            exec(compile(block, f"{page}, python block {number}", "exec"), names)
        return names

    return run


def test_blocks_of_the_readme_run(run_blocks):
    names = run_blocks("README.md")
    assert set(names["rankings"]) == {*FEATURES, "all"}
    np.testing.assert_allclose(np.linalg.norm(names["vectors"], axis=1), np.ones(4), rtol=1e-5)
    # Training has evaluated the same model on the same people.
    assert names["rankings"]["all"].mAP == pytest.approx(
        names["folder"].result["features"]["all"]["mAP"], abs=1e-6
    )


def test_blocks_of_pictures_run(run_blocks):
    names = run_blocks("docs/pictures.md")
    assert not names["model"].training  # the demo's, by its name
    assert names["ranking"].num_valid == 50
    assert names["rows"].shape == (4, 3)


def test_blocks_of_text_and_code_run(run_blocks):
    names = run_blocks("docs/text_and_code.md")
    assert list(names["output"].features) == list(FEATURES)
    assert names["as_printed"].fusion.mfu_residual == "attention"


def test_every_page_with_python_blocks_is_run():
    with_blocks = {page for page in PAGES if blocks(page, "python")}
    assert with_blocks == {"README.md", "docs/pictures.md", "docs/text_and_code.md"}


def test_the_readme_is_short():
    outside_code = re.sub(CODE, "", TEXTS["README.md"])
    assert len(outside_code.split()) <= MOST_WITH_MARKS
    words = [word for word in outside_code.split() if re.search(r"\w", word)]
    assert len(words) <= MOST_WORDS


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page):
    targets = set(re.findall(r"(?m)^([a-z-]+):", (paths.ROOT / "Makefile").read_text()))
    in_blocks = "\n".join(blocks(page, "(?:bash|sh|console|shell)"))
    in_text = "\n".join(re.findall(r"`(make [^`]+)`", re.sub(CODE, "", TEXTS[page])))
    named = set(re.findall(r"\bmake ([a-z-]+)\b", f"{in_blocks}\n{in_text}"))
    assert not named - targets, f"{page} names make targets that are not there"


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_understood(page):
    text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    for command in re.findall(r"(?m)-m fusionreid (.+)$", text):
        parser().parse_args(shlex.split(command, comments=True))
    for script in re.findall(r"benchmarks/(\w+\.py)", TEXTS[page]):
        assert (paths.ROOT / "benchmarks" / script).exists()


@pytest.mark.parametrize("page, link", [each for page in PAGES for each in links(page)])
def test_links_lead_to_files_of_the_repository(page, link):
    target = (paths.ROOT / page).parent / link
    assert target.exists(), f"{page} links to {link}, which is not there"


@pytest.mark.parametrize("page", PAGES)
def test_the_site_has_every_page(page):
    contents = (paths.ROOT / "site" / "_toc.yml").read_text()
    listed = re.findall(r"(?m)^(?:root:|  - file:) (\S+)$", contents)
    assert page.removesuffix(".md") in listed


TABLE = {
    "small CNN (for ResNet-50)": "ResNet50",
    "small Transformer (for ViT-B/16)": "ViT-B/16*",
    "DFE (both, side by side)": "DFE",
    "DFE + LRU": "DFE + LRU",
    "DFE + LRU + SEU": "DFE + LRU + SEU",
    "DFE + LRU + MFU": "DFE + LRU + MFU",
    "full model": "FusionReID*",
}


SENTENCES = {  # what the README says of a claim of the paper, or of a contrast of controls
    "the full model beats DFE": "over DFE, two: {real} and {synthetic} (paper {paper}).",
    "full model, minus CNN and Transformer": "trained apart: {real} and {synthetic} (",
    "full model, minus two Transformers": "Over two Transformers: {real} and {synthetic}.",
    "refined beats backbone (CNN)": "real people: CNN {real} and {synthetic}, Transformer",
    "refined beats backbone (Transformer)": ", Transformer {real} and {synthetic}.",
    "CNN and Transformer, minus two Transformers": "({real}; synthetic {synthetic});",
    "a pair beats its better branch alone": "{real} over the better branch (paper {paper}),",
    "all nine": ", {real} over both trained apart",
}


def test_the_results_are_those_that_are_recorded():
    """Of the paper, of real people and of synthetic ones, as mAP / rank-1."""
    measured = results(["table2", "table6", "figure5"], setting("demo"))
    rows = measured.shown("table2")
    values = rows.set_index(["variant", "source", "metric"]).sort_index()["value"]
    for title, variant in TABLE.items():
        cells = []
        for source in ("paper", "real", "synthetic"):
            cells.append(" / ".join(f"{value:.1f}" for value in values[variant, source]))
        assert f"| {title} | {' | '.join(cells)} |" in TEXTS["README.md"]
    folder = paths.ROOT / "benchmarks" / "results"
    controls = [pd.read_csv(folder / f"{name}.csv") for name in ("controls", "pairs")]
    known = {}
    names = {"contrast": "claim", "pair": "claim", "of": "source"}
    contrasts = [table.rename(columns=names) for table in controls]
    for row in pd.concat([judge(measured), *contrasts]).itertuples():
        text = f"{row.difference:+.1f}"
        if row.source != "paper":
            text += f" ± {(row.high - row.low) / 2:.1f}"
        known.setdefault(row.claim, {})[row.source] = text
    readme = " ".join(TEXTS["README.md"].split())
    for claim, sentence in SENTENCES.items():
        assert sentence.format(**known[claim]) in readme
    said = re.findall(r"[+-][\d.]+ ± [\d.]+\d", readme)
    in_sentences = " ".join(SENTENCES.values())
    assert len(said) == in_sentences.count("{real}") + in_sentences.count("{synthetic}")
    for kind, of_kind in controls[0].set_index("contrast").groupby("of"):
        means = of_kind["value"]
        scaled = means["full model, features of equal length, minus as they are"]
        scaled -= means["CNN and Transformer, minus two CNNs"]  # which are scaled, too
        (said,) = re.findall(r"\((.*) with every feature scaled to length 1\)", TEXTS["README.md"])
        assert f"{scaled:+.1f}" in said, kind
    attention = pd.read_csv(folder / "attention.csv").query("replaced == 'all'")
    attention = attention[~attention["data"].str.contains("demo") | (attention["of"] != "whole")]
    of_people = attention.groupby(["feature", "of"])["difference"].agg(["min", "max", "size"])
    kinds = ["synthetic", "real", "whole"]
    assert list(of_people.loc["all", "size"][kinds]) == [12, 2, 2]
    people = ["mAP (12 models, synthetic people)", "(two, real draws)", "(two, all of Market-1501)"]
    for kind, of_kind in zip(kinds, people, strict=True):
        word = "to" if kind == "synthetic" else "and"
        low, high, _ = of_people.loc["all", kind]
        assert f"{low:+.1f} {word} {high:+.1f} {of_kind}" in readme
    fused = attention.query("feature == 'transformer_fused' and row.str.endswith('FusionReID*')")
    loss = f"{-fused['difference'].max():.1f} to {-fused['difference'].min():.1f}"
    assert f"The full model's fused Transformer feature loses {loss}." in readme
    judged = judge(measured).dropna(subset="locked").set_index(["claim", "source"])
    locked = judged.loc["the full model beats DFE", "locked"]
    assert f"full model over DFE {locked['real']:+.1f} and {locked['synthetic']:+.1f}" in readme
    moved = ~judged["locked"].between(judged["low"], judged["high"])
    assert f"{moved.sum()} of {len(judged)} means lie outside ±" in readme
    decided = judged[judged["verdict"].isin(["yes", "no"])]
    assert len(decided) > 20 and (decided["locked"] * decided["difference"] > 0).all()


ROWS = {"CNN": "ResNet50", "Transformer": "ViT-B/16*", "DFE": "DFE", "full model": "FusionReID*"}


def test_the_numbers_of_the_whole_set_are_those_that_were_measured():
    folder = paths.ROOT / "benchmarks" / "results"
    whole = pd.read_csv(folder / "whole_set.csv").query("not `re-ranked`")
    as_trained = whole.drop_duplicates("row").set_index("row")["mAP"]
    sentence = ", ".join(f"{name} {as_trained[row]:.1f}" for name, row in ROWS.items())
    assert sentence.replace(", Transformer", " mAP, Transformer") in TEXTS["README.md"]
    curve = pd.read_csv(folder / "curve.csv").query("dataset == 'Market-1501'")
    most = curve.sort_values("synthetic people").iloc[-1]
    trained_on = f"{most['synthetic people']:,.0f} rendered people alone: {most['mAP']:.1f}."
    without = whole[~whole["camera embedding"]].set_index("row")["mAP"]
    said_without = ", ".join(f"{name} {without[row]:.1f}" for name, row in list(ROWS.items())[1:])
    assert f"Tested without the camera embedding {said_without}:" in TEXTS["README.md"]
    assert f"The full model trained on {trained_on}" in TEXTS["README.md"]
