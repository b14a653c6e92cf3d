"""Finished runs become rows to commit: averaged by person, merged, found by configuration."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fusionreid import paths
from fusionreid.config import PAPER, DataConfig
from fusionreid.paper import experiments, recorded


def test_scores_are_averaged_by_person(setting, record, tmp_path):
    record("table5", {"GeM": 10}, seeds=(3,), data_seeds=(1,))
    rows, arrays, _ = recorded.archive()
    (run,) = rows["run"].unique()
    with np.load(tmp_path / run / "average_precision.npz") as scores:
        whole = scores["all"]
    people, queries = arrays[f"synthetic {rows['version'].iloc[0]}"]
    assert people.tolist() == list(range(101, 141)) and queries.sum() == len(whole) - 1
    # Person 101 has two queries, the first without a match; 102 has three.
    place = rows["feature"].tolist().index("all")
    assert arrays[run].shape == (7, 2, 40) and arrays[run].dtype == np.float16
    assert arrays[run][place, 0, :2] == pytest.approx([whole[1], whole[2:5].mean()], abs=1e-3)
    assert arrays[run][place, 1] == pytest.approx((arrays[run][place, 0] > 0.5).astype(float))
    weighted = (arrays[run][place] * queries).sum(axis=1) / queries.sum()
    assert 100 * weighted == pytest.approx(
        rows.loc[rows["feature"] == "all", ["mAP", "rank-1"]].iloc[0], abs=0.05
    )


def test_recording_again_replaces_and_adds_in_a_stable_order(record):
    files = [paths.RECORDED / "recorded.csv", paths.RECORDED / "recorded.npz"]
    assert record("table5", {"GeM": 10, "GAP": 4}, seeds=(1, 0)) == 8
    first = [file.read_bytes() for file in files]
    assert record("table5", {"GAP": 4, "GeM": 10}, seeds=(0, 1)) == 8
    assert [file.read_bytes() for file in files] == first, "the same runs, the same bytes"
    record("table5", {"GeM": 20}, seeds=(0,))
    changed = recorded.archive().rows
    assert len(changed) == 2 * 4 * 7 and changed["mAP"].max() > 65
    record("table2", {"DFE": 0}, seeds=(0,))
    assert set(recorded.archive().rows["row"]) == {
        "table1: FusionReID*",
        "table2: DFE",
        "table5: GAP",
    }


def test_locked_draws_enter_no_other_number(setting, record, monkeypatch):
    record("table5", {"GeM": 10, "GAP": 4}, spread=0.1)
    run = setting().run
    names = [recorded.configuration(run(each.config, 0)) for each in experiments.variants("table5")]
    difference = {(names[0], "all"): 1, (names[1], "all"): -1}
    both = recorded.contrast(difference, "mAP")
    assert both.runs == 8 and recorded.contrast(difference, "mAP", locked=True).runs == 0
    monkeypatch.setattr(recorded, "LOCKED", (1,))
    apart = [recorded.contrast(difference, "mAP", locked=locked) for locked in (False, True)]
    assert [each.runs for each in apart] == [4, 4]
    assert (apart[0].mean + apart[1].mean) / 2 == pytest.approx(both.mean)
    assert "40 different test people" in recorded.about(
        names
    ) and "data seeds 0," in recorded.about(names)


@pytest.mark.parametrize("suffix", ["csv", "npz"])
def test_on_a_full_disk_both_files_stay_as_they_were(record, monkeypatch, suffix):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files = [paths.RECORDED / "recorded.csv", paths.RECORDED / "recorded.npz"]
    record("table5", {"GeM": 10}, seeds=(0,), data_seeds=(0,))
    first = [file.read_bytes() for file in files]
    with (
        monkeypatch.context() as patch,
        pytest.raises(OSError, match="No space left .* the same command") as caught,
    ):
        patch.setattr(
            *{"csv": (pd.DataFrame, "to_csv"), "npz": (np, "savez_compressed")}[suffix], full
        )
        record("table5", {"GAP": 20}, seeds=(0,), data_seeds=(0,))
    assert caught.value.filename == str(paths.RECORDED / f"recorded.{suffix}")
    assert [file.read_bytes() for file in files] == first
    assert record("table5", {"GAP": 20}, seeds=(0,), data_seeds=(0,)) == 2


def test_every_point_of_a_curve_is_kept(record):
    assert record("figure5", {"L = 1": 1, "L = 3": 3}, seeds=(0,), data_seeds=(0,)) == 2
    assert {"figure5: L = 1", "figure5: L = 3"} == set(recorded.archive().rows["row"])


def test_a_variant_finds_its_rows_by_configuration(setting):
    own = setting()
    key = recorded.configuration(own.run(PAPER, 0))
    other = experiments.setting(
        "smoke", replace(own.data, seed=1, version=""), (5,), runs_root=own.runs_root
    )
    assert key == recorded.configuration(other.run(PAPER, 5))
    assert key != recorded.configuration(own.run(replace(PAPER, fusion=None), 0))
    longer = replace(own.profile, train=replace(own.profile.train, epochs=3))
    assert key != recorded.configuration(replace(own, profile=longer).run(PAPER, 0)), (
        "trained otherwise: a gap"
    )
    assert key != recorded.configuration(
        experiments.setting("smoke", DataConfig("market1501")).run(PAPER, 0)
    )


def test_contrasts_are_paired(record):
    """What two rows have in common, how easy a person is, cancels; a row less itself is nothing."""
    record("table5", {"GeM": 10, "GAP": 4}, spread=0.1)
    rows = recorded.archive().rows
    gem, gap = (
        rows.loc[rows["row"] == row, "configuration"].iloc[0]
        for row in ("table1: FusionReID*", "table5: GAP")
    )
    less = recorded.contrast({(gem, "all"): 1.0, (gap, "all"): -1.0}, "mAP")
    assert less.mean == pytest.approx(6, abs=0.2) and less.runs == 8 and less.high - less.low < 1
    alone = recorded.contrast({(gem, "all"): 1.0}, "mAP")
    assert alone.high - alone.low > 3, "the people differ by ten points"
    features = recorded.contrast({(gem, "cnn"): 1.0, (gem, "all"): -1.0}, "rank-1")
    assert features[:3] == (0, 0, 0)


def test_only_seeds_that_both_rows_have_are_compared(record):
    record("table5", {"GeM": 10}, seeds=(0, 1, 2))
    record("table5", {"GAP": 4}, seeds=(1, 2, 3), data_seeds=(1,))
    rows = recorded.archive().rows
    gem, gap = (
        rows.loc[rows["row"] == row, "configuration"].iloc[0]
        for row in ("table1: FusionReID*", "table5: GAP")
    )
    assert recorded.contrast({(gem, "all"): 1.0, (gap, "all"): -1.0}, "mAP").runs == 2
    nothing = recorded.contrast({(gem, "all"): 1.0, ("0123456789ab", "all"): -1.0}, "mAP")
    assert nothing.runs == 0 and np.isnan(nothing.mean)
    assert recorded.about([gem]).startswith(
        "6 runs a row, training seeds 0, 1, 2, data seeds 0, 1, 80 different test people"
    )
    assert recorded.about(["0123456789ab"]) == "no runs"


def test_runs_on_other_data_are_not_recorded(setting, finish, people):
    finish("table5", [50.0])
    (people / "smoke-0" / "manifest.json").write_text('{"size": "smoke", "seed": 0, "version": 1}')
    assert recorded.record(setting(data_root=people / "smoke-0")) == 0


def test_nothing_finished_records_nothing(setting, people):
    assert (
        recorded.record(setting(data_root=people / "smoke-0")) == 0 and not paths.RECORDED.exists()
    )


def test_rows_of_real_people_are_found_without_their_files(setting):
    """The version comes from the files, and a reader of the rows may not have them."""
    profile = setting().profile
    data = replace(profile.data, name="market1501", version="3f2a9c01", seed=1)
    run = setting(data).run(PAPER, 2)
    assert recorded.configuration(run) == recorded.configuration_of(PAPER, profile, "real")
    own = setting().run(PAPER, 0)
    assert recorded.configuration(own) == recorded.configuration_of(PAPER, profile, "synthetic")
    pictures = setting(replace(profile.data, version="3f2a9c01")).run(PAPER, 0)
    assert recorded.configuration(pictures) != recorded.configuration(own)


def test_one_more_run_is_expected_where_the_others_are(record):
    record("table5", {"GeM": 10, "GAP": 0}, seeds=(0, 1, 2))
    rows = recorded.archive().rows.query("feature == 'all'")
    squares = 0
    freedom = 0
    for _, runs in rows.groupby(["configuration", "data_seed"])["mAP"]:
        squares += ((runs - runs.mean()) ** 2).sum()
        freedom += 3 - 1
    assert freedom == 8, "two rows on two draws"
    deviation = np.sqrt(squares / freedom)
    half = stats.t.ppf(0.975, freedom) * deviation * np.sqrt(4 / 3)
    for (configuration, data_seed), runs in rows.groupby(["configuration", "data_seed"])["mAP"]:
        expected = recorded.expected(configuration, data_seed)
        assert expected == pytest.approx((runs.mean() - half, runs.mean() + half))
        assert np.isnan(recorded.expected(configuration, 7)).all()
