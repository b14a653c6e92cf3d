"""The paper's claims name rows that exist, agree with its numbers, and are judged right in ours."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fusionreid.config import PROFILES
from fusionreid.paper import compare
from fusionreid.paper import numbers as paper
from fusionreid.paper.claims import CLAIMS, judge, save, sentences
from fusionreid.paper.compare import results
from fusionreid.paper.experiments import BACKBONES, EXPERIMENTS, variants

# Where the paper's own numbers contradict its statement.
CONTRARY = {
    ("table3", "SEU only > MFU, SEU"),
    ("table3", "MFU only > MFU, SEU"),
    ("table6", "ResNet101 + T2T-ViT-14, all six > CNN fused"),
    ("table6", "ResNet152 + T2T-ViT-14, all six > CNN fused"),
}


def papers(name, change=lambda value: value):
    """The paper's accuracies of an experiment's variants on MSMT17, changed; else 50 %."""
    values = []
    printed = paper.accuracies(name, "msmt17")
    for variant in variants(name):
        keys = [
            (feature, metric)
            for feature in compare.features_of(variant.config)
            for metric in compare.ACCURACY
        ]
        values.append({key: change(printed.get((variant.name, *key), 50.0)) for key in keys})
    return values


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_claims_are_on_rows_that_exist(name):
    features = {variant.name: compare.features_of(variant.config) for variant in variants(name)}
    claims = CLAIMS[CLAIMS["experiment"] == name]
    assert not claims.duplicated(["case", "variant", "feature"]).any()
    for case, terms in claims.groupby("case"):
        assert terms["claim"].nunique() == terms["order"].nunique() == 1, case
        assert terms["weight"].sum() == pytest.approx(0)
        for term in terms.itertuples():
            assert term.feature in features[term.variant]


@pytest.mark.parametrize("dataset", ["synthetic", "market1501", "dukemtmc"])
def test_the_papers_numbers_bear_out_its_claims(setting, dataset):
    judged = judge(results(EXPERIMENTS, setting(dataset)))
    assert not judged["paper"].isna().any()
    assert set(judged["sign"]) == {"not run"} and set(judged["verdict"]) == {"not recorded"}
    against = judged[judged["paper"] < 0]
    if dataset == "synthetic":  # beside MSMT17
        assert set(zip(against["experiment"], against["case"], strict=True)) == CONTRARY
        assert set(against["metric"]) == {"rank-1"}


@pytest.mark.parametrize("name", ["table1", "table2", "table4", "table6", "figure5", "figure6"])
def test_the_papers_own_numbers_agree_and_reversed_ones_do_not(setting, finish, name):
    finish(name, papers(name))
    judged = judge(results(name, setting()))
    assert (judged["sign"] == "yes").all() and (judged["ours"] - judged["paper"]).abs().max() < 1e-6
    finish(name, papers(name, lambda value: 100 - value))
    assert (judge(results(name, setting()))["sign"] == "no").all()


def test_orders_of_stand_ins_are_not_counted(setting):
    small = judge(results("table6", setting()))
    own = setting().profile
    whole = judge(results("table6", replace(setting(), profile=replace(own, backbones={}))))
    assert len(whole) - len(small) == 2 * (6 + 2 + 2 + 6)
    assert (
        not small["case"]
        .isin([f"{one} > {other}" for one in BACKBONES for other in BACKBONES])
        .any()
    )
    assert not small["claim"].str.contains("deeper").any()
    assert not PROFILES["paper"].backbones


def test_what_two_tables_hold_is_counted_once(setting):
    """SEU alone is a row of Table II and one of Table III, and so is the full model."""
    together = judge(results(["table2", "table3"], setting()))
    apart = [judge(results(name, setting())) for name in ("table2", "table3")]
    assert len(apart[0]) + len(apart[1]) - len(together) == 2 * 2
    assert "FusionReID* > DFE + LRU + SEU" in set(together["case"])
    assert "SEU, MFU > SEU only" not in set(together["case"]) and "SEU, MFU > SEU only" in set(
        apart[1]["case"]
    )


def test_verdicts_are_the_recorded_runs(setting, finish, record, tmp_path):
    record(
        "table2",
        {"DFE + LRU": 0, "DFE + LRU + SEU": 6, "DFE + LRU + MFU": -6, "FusionReID*": 0, "DFE": 0.1},
    )
    judged = judge(results("table2", setting())).set_index(["case", "metric"])
    verdicts = judged["verdict"].xs("mAP", level="metric")
    assert (
        verdicts["DFE + LRU + SEU > DFE + LRU"] == "yes"
        and verdicts["FusionReID* > DFE + LRU + MFU"] == "yes"
    )
    assert (
        verdicts["DFE + LRU + MFU > DFE + LRU"] == "no"
        and verdicts["DFE + LRU > DFE"] == "undecided"
    )
    assert verdicts["DFE > ResNet50"] == "not recorded"
    row = judged.loc[("DFE + LRU + SEU > DFE + LRU", "mAP")]
    assert row["low"] < 6 < row["high"] and row["runs"] == 8
    assert row["sign"] == "yes", "the own run is one of them"
    assert set(judged["verdict"]) <= {"yes", "no", "undecided", "not recorded"}
    shown = save(judged.reset_index(), tmp_path / "orders")
    assert (
        shown["mAP", "holds"].tolist() == verdicts.tolist() and (tmp_path / "orders.csv").exists()
    )
    assert shown["mAP", "recorded"].str.contains(" ± ").sum() == (verdicts != "not recorded").sum()


def test_a_sentence_says_what_was_recorded(setting, record):
    record("table2", {"DFE + LRU": 0, "DFE + LRU + SEU": 6})
    lines = sentences(judge(results("table2", setting()))).splitlines()
    adds = next(line for line in lines if line.startswith("SEU adds (DFE + LRU + SEU >"))
    assert adds.endswith("(8 runs): yes.") and ": paper +1.0, recorded +" in adds and " ± " in adds
    assert "LRU adds (DFE + LRU > DFE): paper +0.2, not recorded." in lines


def test_many_cases_are_counted_in_one_sentence(setting, record):
    record("figure5", {"L = 1": 0, "L = 2": 1})  # all features of a run alike
    lines = sentences(judge(results("figure5", setting()))).splitlines()
    assert [line.split(" (")[0] for line in lines[:2]] == [
        "refined beats backbone",
        "fused beats refined",
    ]
    assert lines[1].startswith("fused beats refined (12 cases): paper +")
    assert lines[1].endswith(", recorded +0.0 to +0.0: 8 not recorded, 4 undecided.")


def test_an_interval_against_the_paper_is_a_no(setting, record):
    """In the paper MFU first has a higher rank-1 than MFU only: one below zero refutes it."""
    record("table3", {"MFU only": 10, "MFU, SEU": 0})
    judged = judge(results("table3", setting())).set_index(["case", "metric"])["verdict"]
    assert (
        judged["MFU only > MFU, SEU", "mAP"] == "yes"
        and judged["MFU only > MFU, SEU", "rank-1"] == "no"
    )


def test_equal_numbers_are_neither(setting, finish):
    finish("figure5", [50.0] * 6)
    assert set(judge(results("figure5", setting()))["sign"]) == {"equal"}
