"""The paper's claims name rows that exist, agree with its numbers, and are judged right in ours."""

from __future__ import annotations

import shlex
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fusionreid.__main__ import parser
from fusionreid.config import PROFILES, DataConfig
from fusionreid.paper import compare, recorded
from fusionreid.paper import numbers as paper
from fusionreid.paper.claims import CLAIMS, corrected, evidence, judge, save, sentences
from fusionreid.paper.compare import results
from fusionreid.paper.experiments import EXPERIMENTS, plan, variants

EVERY = [*EXPERIMENTS, "differences"]
SEU = "SEU adds to LRU"
MFU = "MFU adds to LRU"


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


def of_source(judged, source):
    return judged[judged["source"] == source].set_index("claim")


@pytest.mark.parametrize("name", EVERY)
def test_claims_are_on_rows_that_exist(name):
    features = {variant.name: compare.features_of(variant.config) for variant in variants(name)}
    terms = CLAIMS[CLAIMS["experiment"] == name]
    assert len(terms)
    for term in terms.itertuples():
        assert term.feature in features[term.variant]


def test_every_case_is_a_difference_and_no_claim_is_another():
    weights = set()
    for claim, terms in CLAIMS.groupby("claim"):
        assert terms["kind"].nunique() == 1, claim
        for case, of_case in terms.groupby("case"):
            assert of_case["weight"].sum() == pytest.approx(0), case
            assert not of_case.duplicated(["variant", "feature"]).any()
        keys = terms.groupby(["variant", "feature"])["weight"].sum()
        weights.add(frozenset(keys[keys != 0].items()))
    assert len(weights) == CLAIMS["claim"].nunique()


def test_on_msmt17_the_papers_numbers_bear_out_all_its_claims(setting):
    judged = judge(results(EVERY, setting()))
    printed = of_source(judged, "paper")["difference"]
    assert printed.drop("MFU that keeps its query beats MFU as printed").gt(0).all()
    assert set(of_source(judged, "own")["verdict"]) == {"not run"}
    assert set(of_source(judged, "real")["verdict"]) == {"not recorded"}


def test_a_claim_is_the_mean_of_its_cases(setting):
    printed = of_source(judge(results("table2", setting())), "paper")["difference"]
    # SEU adds 68.7 - 67.7, MFU 68.9 - 67.7, LRU 67.7 - 67.5.
    assert printed["LRU adds less than SEU or MFU"] == pytest.approx((1.0 + 1.2) / 2 - 0.2)


@pytest.mark.parametrize("name", ["table1", "table2", "table4", "table6", "figure6"])
def test_the_papers_own_numbers_agree_and_reversed_ones_do_not(setting, finish, name):
    finish(name, papers(name))
    judged = judge(results(name, setting()))
    own = of_source(judged, "own")
    assert set(own["verdict"]) == {"yes"}
    differences = own["difference"] - of_source(judged, "paper")["difference"]
    assert differences.abs().max() < 1e-6
    finish(name, papers(name, lambda value: 100 - value))
    assert set(of_source(judge(results(name, setting())), "own")["verdict"]) == {"no"}


def test_orders_of_stand_ins_are_not_counted(setting):
    small = set(judge(results("table6", setting()))["claim"])
    own = setting().profile
    whole = judge(results("table6", replace(setting(), profile=replace(own, backbones={}))))
    orders = set(CLAIMS.loc[CLAIMS["kind"] == "order", "claim"])
    assert set(whole["claim"]) - small == orders and len(orders) == 4
    assert not PROFILES["paper"].backbones


def test_a_claim_that_needs_two_experiments_waits_for_both(setting):
    claim = "training together lifts the CNN's own feature"
    assert claim not in set(judge(results("figure5", setting()))["claim"])
    judged = judge(results(["table2", "figure5"], setting()))
    assert of_source(judged, "paper").loc[claim, "difference"] == pytest.approx(55.2 - 54.3)


def test_verdicts_are_the_recorded_runs(setting, finish, record, tmp_path):
    points = {"DFE": 0, "DFE + LRU": 0, "DFE + LRU + SEU": 6, "DFE + LRU + MFU": -6}
    record("table2", points | {"FusionReID*": 0})
    judged = judge(results("table2", setting()))
    found = of_source(judged, "synthetic")
    assert found["verdict"][SEU] == "yes" and found["verdict"][MFU] == "no"
    assert found["verdict"]["LRU adds"] == "undecided"
    assert found["verdict"]["two branches beat the CNN alone"] == "not recorded"
    adds = found.loc[SEU]
    assert adds["low"] < 6 < adds["high"] and adds["runs"] == 8 and adds["p"] < 0.05
    assert found["above"][SEU] > 0.975 and found["above"][MFU] < 0.025
    assert set(of_source(judged, "real")["verdict"]) == {"not recorded"}
    own = of_source(judged, "own")["verdict"]
    assert own[SEU] == "yes", "the own run is one of them"
    shown = save(judged, tmp_path / "orders").loc["Table II"]
    assert shown["holds on synthetic people"].to_dict() == found["verdict"].to_dict()
    assert shown["synthetic people"].str.contains(" ± ").sum() == found["low"].notna().sum()
    assert shown["paper"][SEU] == "+1.0" and shown["own run"][SEU] == "yes"
    assert len(pd.read_csv(tmp_path / "orders.csv")) == len(judged)


def test_locked_draws_confirm_in_a_column_of_their_own(setting, record, monkeypatch, tmp_path):
    record("table5", {"GeM": 10, "GAP": 4}, spread=0.1)
    shown = save(judge(results("table5", setting())), tmp_path / "orders")
    assert "synthetic, locked draws" not in shown
    monkeypatch.setattr(recorded, "LOCKED", (1,))
    judged = judge(results("table5", setting()))
    assert of_source(judged, "synthetic").loc["GeM beats GAP", "runs"] == 4
    shown = save(judged, tmp_path / "orders")
    assert float(shown["synthetic, locked draws"].iloc[0]) == pytest.approx(6, abs=0.5)
    assert "real, locked draws" not in shown


def test_evidence_names_the_runs_and_the_command_that_makes_them(setting, people, record):
    record("table5", {"GeM": 10, "GAP": 4}, seeds=(0, 3))
    found = evidence(results("table5", setting()))
    assert len(found) == 4 and not found["locked"].any()  # two variants on two draws
    for row in found.itertuples():
        options = parser().parse_args(shlex.split(row.command)[3:])
        assert (options.profile, options.size, options.rows) == ("smoke", "smoke", [row.variant])
        data = DataConfig(options.dataset, options.size, options.data_seeds[0])
        chosen = setting(dataset=data, seeds=options.seeds, data_root=people / f"smoke-{data.seed}")
        runs = plan(options.names, chosen, options.rows).values()
        assert [run.fingerprint for run in runs] == row.runs.split()


def test_a_difference_that_is_surely_small_is_none(setting, record):
    record("table5", {"GeM": 4.02, "GAP": 4}, spread=0.1)
    found = of_source(judge(results("table5", setting())), "synthetic").loc["GeM beats GAP"]
    assert -0.5 < found["low"] < 0 < found["high"] < 0.5
    assert found["verdict"] == "no difference"


@pytest.mark.parametrize(
    ("low", "high", "shown"), [(-0.55, 0.5, "-0.02 ± 0.53"), (-0.95, 0.9, "0.0 ± 0.9")]
)
def test_a_verdict_that_one_decimal_hides_has_two(low, high, shown, setting, record, tmp_path):
    record("table5", {"GeM": 10, "GAP": 4})
    judged = judge(results("table5", setting()))
    row = judged["source"] == "synthetic"
    judged.loc[row, ["difference", "low", "high"]] = [-0.02, low, high]
    judged.loc[row, "verdict"] = "undecided"
    assert save(judged, tmp_path / "orders")["synthetic people"].tolist() == [shown]


def test_one_run_is_too_few(setting, record):
    record("table5", {"GeM": 10, "GAP": 4}, seeds=(0,), data_seeds=(0,))
    found = of_source(judge(results("table5", setting())), "synthetic").loc["GeM beats GAP"]
    assert found["verdict"] == "too few runs" and found["difference"] > 0


def test_a_claim_with_some_cases_recorded_says_how_many(setting, record, tmp_path):
    record("table6", {"ResNet50": 0, "ViT-B/16*": 4, "ResNet50 + ViT-B/16*": 10})
    judged = judge(results("table6", setting()))
    found = of_source(judged, "synthetic").loc["a pair beats its better branch alone"]
    assert found["verdict"] == "1 of 9 cases" and np.isnan(found["difference"])
    assert found["part"] == pytest.approx(6, abs=1)
    shown = save(judged, tmp_path / "orders").loc["Table VI"]
    mean, half = map(float, shown["synthetic people"][found["case"]].split(" ± "))
    assert mean == pytest.approx(found["part"], abs=0.05)
    assert mean - half == pytest.approx(found["low"], abs=0.1)
    assert "synthetic people 1 of 9 cases, +" in sentences(judged)
    assert set(corrected(judged)) <= set(judged["verdict"]) | {"undecided"}


def test_many_claims_at_once_want_more(setting):
    """Of ten claims, one with p = 0.04 is no finding; one with p = 1e-6 stays one."""
    judged = pd.DataFrame(
        {
            "source": ["real"] * 10 + ["paper"],
            "verdict": ["yes"] * 2 + ["no"] + ["undecided"] * 7 + [""],
            "p": [1e-6, 0.04, 0.03, *np.linspace(0.1, 0.9, 7), np.nan],
        }
    )
    assert corrected(judged).tolist() == ["yes"] + ["undecided"] * 9 + [""]
    assert judged["verdict"].tolist().count("yes") == 2, "the given verdicts stay"


def test_a_sentence_says_what_was_recorded(setting, record):
    record("table2", {"DFE + LRU": 0, "DFE + LRU + SEU": 6})
    lines = sentences(judge(results("table2", setting()))).splitlines()
    assert "LRU adds: paper +0.2; real people not recorded; synthetic people not recorded." in lines
    record("table5", {"GeM": 10, "GAP": 4})
    (line,) = sentences(judge(results("table5", setting()))).splitlines()
    assert line.startswith("GeM beats GAP: paper +0.9; real people not recorded; ")
    assert " synthetic people yes, +" in line and " ± " in line and line.endswith("(8 runs).")


def test_equal_numbers_are_neither(setting, finish):
    finish("figure6", [50.0] * 5)
    own = of_source(judge(results("figure6", setting())), "own")
    assert set(own["verdict"]) == {"equal"}
