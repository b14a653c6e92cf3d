"""The paper's numbers against what its text says of them."""

from __future__ import annotations

import pandas as pd
import pytest

from fusionreid.paper import numbers as paper

# A stated difference that the printed tables contradict, and what the tables give instead.
CONTRADICTED = {"f'_(t,L) attains 3.2% mAP and 1.6% Rank-1 over ViT-B/16*": (3.2, 2.4)}


def entry(table: str, name: str, feature: str = "all", dataset: str = "msmt17") -> pd.Series:
    frame = paper.table(table)
    rows = frame[
        ((frame["variant"] == name) | ((frame["variant"] == "") & (frame["method"] == name)))
        & (frame["feature"] == feature)
        & (frame["dataset"] == dataset)
    ]
    assert len(rows) == 1, (table, name, feature)
    return rows.iloc[0]


@pytest.mark.parametrize("statement", paper.statements().to_dict("records"), ids=lambda s: s["statement"])
def test_statements(statement):
    row = entry(statement["table"], statement["row"], statement["row_feature"])
    base = entry(statement["table"], statement["base"], statement["base_feature"])
    difference = tuple(round(row[metric] - base[metric], 1) for metric in ("mAP", "rank-1"))
    stated = tuple(float(statement[metric]) for metric in ("mAP", "rank-1"))
    if statement["statement"] in CONTRADICTED:
        assert statement["note"].startswith("misprint")
        assert difference == CONTRADICTED[statement["statement"]] != stated
    elif statement["statement"].startswith("outperforms NFormer"):  # "by about 10%"
        assert difference == pytest.approx(stated, abs=1)
    else:
        assert difference == stated


def test_the_full_model_is_the_same_everywhere():
    rows = [
        entry("table1", "FusionReID*"),
        entry("table2", "FusionReID*"),
        entry("table3", "SEU, MFU"),
        entry("table4", "SEU shared, MFU unshared"),
        entry("table5", "GeM"),
        entry("table6", "ResNet50 + ViT-B/16*"),
        entry("figure5", "L = 2"),
        entry("figure6", "D = 768"),
    ]
    for row in rows:
        assert (row["mAP"], row["rank-1"]) == (69.5, 86.7)


def test_stated_bests():
    assert tuple(entry("table6", "ResNet152 + ViT-B/16*")[["mAP", "rank-1"]]) == (71.8, 87.9)
    assert paper.table("table6")["mAP"].max() == 71.8
    assert tuple(entry("figure6", "D = 1152")[["mAP", "rank-1"]]) == (70.0, 86.8)
    assert paper.table("figure6")["mAP"].max() == 70.0
    frame = paper.table("table1")
    for dataset in ("market1501", "dukemtmc", "msmt17"):  # "our method achieves the best mAP and Rank-1"
        part = frame[frame["dataset"] == dataset]
        for metric in ("mAP", "rank-1"):
            assert (part.loc[part[metric] == part[metric].max(), "method"] == "FusionReID").all()


def test_costs_of_one_htm_are_differences_of_table2():
    refined = entry("table2", "DFE + LRU")
    for whole, one in (("DFE + LRU + SEU", "SEU only"), ("DFE + LRU + MFU", "MFU only"), ("FusionReID*", "SEU, MFU")):
        for cost in ("parameters", "FLOPs"):
            difference = (entry("table2", whole)[cost] - refined[cost]) / 2  # two HTMs
            assert entry("table3", one)[cost] == pytest.approx(difference, abs=0.1)


def test_the_misprint_is_kept_and_marked():
    frame = paper.table("table6")
    marked = frame[frame["note"].str.startswith("misprint")]
    assert set(marked["variant"]) == {"ResNet101 + T2T-ViT-14"}
    assert set(marked["parameters"]) == {107.0}

    def parameters(name):
        return entry("table6", name)["parameters"]

    grown = parameters("ResNet101") - parameters("ResNet50")
    for transformer in ("ViT-B/16*", "DeiT-B/16*"):
        difference = parameters(f"ResNet101 + {transformer}") - parameters(f"ResNet50 + {transformer}")
        assert difference == pytest.approx(grown)
    assert parameters("ResNet50 + T2T-ViT-14") + grown == pytest.approx(108.0)


def test_every_gap_says_why():
    for name in paper.TABLES:
        frame = paper.table(name)
        gaps = frame[frame[["mAP", "rank-1"]].isna().any(axis=1)]
        assert gaps["note"].str.contains("lost|not reported|not printed").all(), name
    frame = paper.table("table1")
    lost = frame[frame["note"].str.startswith("lost")]
    assert list(zip(lost["method"], lost["dataset"], strict=True)) == [
        ("AAformer [17]", "market1501"), ("FusionReID", "market1501"),
    ]  # fmt: skip
    assert list(lost["rank-1"]) == [95.4, 96.3] and lost["mAP"].isna().all()


@pytest.mark.parametrize(
    ("name", "rows"),
    [("table1", 60), ("table2", 7), ("table3", 4), ("table4", 4), ("table5", 2), ("table6", 33), ("figure5", 8),
     ("figure6", 5)],
)  # fmt: skip
def test_tables_are_whole(name, rows):
    frame = paper.table(name)
    assert len(frame) == rows
    assert not frame.select_dtypes(exclude="number").isna().any(axis=None)
    assert frame[["mAP", "rank-1", "parameters", "FLOPs"]].dtypes.eq(float).all()
    assert frame[["mAP", "rank-1"]].stack().dropna().between(50, 100).all()
    assert (frame["mAP"].fillna(0) <= frame["rank-1"].fillna(100)).all()


def test_a_table_is_the_callers_own():
    frame = paper.table("table2")
    frame.loc[0, "mAP"] = 0.0
    assert paper.table("table2").loc[0, "mAP"] == 54.3


def test_keys_of_reported():
    assert paper.reported("table2")["ResNet50"] == {"mAP": 54.3, "rank-1": 78.1, "parameters": 23.5, "macs": 4.1}
    one_htm = {"mAP": 68.9, "rank-1": 86.0, "htm/parameters": 14.2, "htm/macs": 0.5}
    assert paper.reported("table3")["MFU only"] == one_htm
    assert paper.reported("table6")["ResNet50 + ViT-B/16*"] == {
        "cnn_fused/mAP": 66.0, "cnn_fused/rank-1": 85.4,
        "transformer_fused/mAP": 67.8, "transformer_fused/rank-1": 85.6,
        "mAP": 69.5, "rank-1": 86.7, "parameters": 153.8, "macs": 28.1,
    }  # fmt: skip
    assert "market1501/mAP" not in paper.reported("table1")["FusionReID*"]
    assert paper.reported("table1")["FusionReID*"]["market1501/rank-1"] == 96.3
    assert paper.reported("figure5")["L = 1"] == {}


def test_an_unknown_table_lists_the_known_ones():
    with pytest.raises(ValueError, match="table7.*table1, table2"):
        paper.table("table7")
