"""Every variant is a valid configuration, and what several experiments share is one run."""

from __future__ import annotations

import pytest

from fusionreid.config import PAPER, PROFILES, DataConfig
from fusionreid.models.fusionreid import build_model
from fusionreid.paper import experiments
from fusionreid.paper import numbers as paper
from fusionreid.paper.experiments import EXPERIMENTS, plan, variants


@pytest.mark.parametrize(
    ("name", "count"), list(zip(EXPERIMENTS, (4, 7, 4, 4, 2, 15, 6, 5), strict=True))
)
def test_variants_are_the_papers_rows(name, count):
    found = variants(name)
    assert len(found) == len({variant.config for variant in found}) == count
    assert {variant.name for variant in found} == set(paper.costs(name).index)
    for variant in found:  # of all features on MSMT17, wherever the paper says it
        assert {"mAP", "rank-1"} <= set(variant.reported), variant.name


def test_a_variant_has_what_the_paper_reports_of_it():
    cnn = variants("table2")[0]
    assert cnn.reported == {"mAP": 54.3, "rank-1": 78.1, "parameters": 23.5, "macs": 4.1}
    pair = {variant.name: variant.reported["mAP"] for variant in variants("table6")}
    assert pair["ResNet50 + ViT-B/16*"] == 69.5, "all six features, not a fused one"
    assert not any(variant.reported for variant in variants("differences"))


@pytest.mark.parametrize("name", [*EXPERIMENTS, "differences"])
@pytest.mark.parametrize("profile", PROFILES)
def test_every_variant_has_its_place_in_every_profile(name, profile):
    runs = [experiments.setting(profile).run(variant.config, 0) for variant in variants(name)]
    assert len({run.fingerprint for run in runs}) == len(runs)


def test_variants_that_tables_share_are_one_run(setting):
    runs = plan(EXPERIMENTS, setting(seeds=(0, 1)))
    assert sum(len(variants(name)) for name in EXPERIMENTS) == 47 and len(runs) == 2 * 36
    (full,) = [name for name, run in runs.items() if run == setting().run(PAPER, 0)]
    assert full == (
        "table1: FusionReID*, also table2: FusionReID*, also table3: SEU, MFU"
        ", also table4: SEU shared, MFU unshared, also table5: GeM"
        ", also table6: ResNet50 + ViT-B/16*, also figure5: L = 2, also figure6: D = 768 (seed 0)"
    )


def test_rows_choose_variants(setting):
    assert list(plan("table5", setting(), rows=["GAP"])) == ["table5: GAP (seed 0)"]
    with pytest.raises(ValueError, match="row='GMP' is not known; it is one of: 'GeM', 'GAP'"):
        plan("table5", setting(), rows=["GMP"])


def test_each_difference_is_one_change_of_the_default():
    first, *others = variants("differences")
    assert first.config == PAPER
    for variant in others:
        changed = {
            key for key, value in vars(variant.config).items() if value != getattr(PAPER, key)
        }
        if changed == {"fusion"}:
            changed = {
                key
                for key, value in vars(variant.config.fusion).items()
                if value != getattr(PAPER.fusion, key)
            }
        assert len(changed) == 1, variant.name
        build_model(PROFILES["smoke"].scale(variant.config), num_classes=2, num_cameras=1)


def test_the_setting_knows_the_data():
    assert experiments.setting("smoke").data == DataConfig(
        size="smoke", version=experiments.setting("smoke").data.version
    )
    assert experiments.setting("smoke").data.version.startswith("v")
    assert experiments.setting(PROFILES["paper"]).data.name == "market1501"
    given = DataConfig(name="msmt17", version="V2")
    assert experiments.setting("smoke", given, seeds=[3]).data == given
    with pytest.raises(ValueError, match="cuhk03.*market1501"):
        experiments.setting("smoke", "cuhk03")


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="'table7'.*'table1'.*'figure6'"):
        variants("table7")
    with pytest.raises(ValueError, match="'tiny'.*'smoke'"):
        experiments.setting("tiny")


def test_notebooks_train_some_rows_of_the_long_tables():
    trained = {name: experiments.own_rows(name) for name in (*EXPERIMENTS, "differences")}
    for name, rows in trained.items():
        every = [variant.name for variant in experiments.variants(name)]
        assert set(rows) <= set(every)
        assert experiments.own_rows(name, every=True) == every
    whole = [name for name, rows in trained.items() if len(rows) == len(variants(name))]
    assert whole == ["table2", "table3", "table5"]


def test_a_row_names_the_stand_ins_of_a_profile():
    small = PROFILES["demo"]
    assert experiments.label("ResNet50", small) == "ResNet50 (ours: small CNN)"
    pair = "ResNet101 + T2T-ViT-14"
    assert experiments.label(pair, small) == f"{pair} (ours: deep CNN + small T2T-ViT)"
    assert experiments.label("DFE + LRU", small) == "DFE + LRU"
    assert experiments.label(pair, PROFILES["paper"]) == pair
