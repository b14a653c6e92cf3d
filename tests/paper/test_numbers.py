"""The paper's numbers against what its text says of them."""

from __future__ import annotations

import pandas as pd
import pytest

from fusionreid.paper import numbers as paper


def entry(table: str, name: str, feature: str = "all", dataset: str = "msmt17") -> pd.Series:
    frame = paper.table(table)
    rows = frame[
        ((frame["variant"] == name) | ((frame["variant"] == "") & (frame["method"] == name)))
        & (frame["feature"] == feature)
        & (frame["dataset"] == dataset)
    ]
    assert len(rows) == 1, (table, name, feature)
    return rows.iloc[0]


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
    for dataset in (
        "market1501",
        "dukemtmc",
        "msmt17",
    ):  # "our method achieves the best mAP and Rank-1"
        part = frame[frame["dataset"] == dataset]
        for metric in ("mAP", "rank-1"):
            assert (part.loc[part[metric] == part[metric].max(), "method"] == "FusionReID").all()


def test_costs_of_one_htm_are_differences_of_table2():
    refined = entry("table2", "DFE + LRU")
    for whole, one in (
        ("DFE + LRU + SEU", "SEU only"),
        ("DFE + LRU + MFU", "MFU only"),
        ("FusionReID*", "SEU, MFU"),
    ):
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
        difference = parameters(f"ResNet101 + {transformer}") - parameters(
            f"ResNet50 + {transformer}"
        )
        assert difference == pytest.approx(grown)
    assert parameters("ResNet50 + T2T-ViT-14") + grown == pytest.approx(108.0)


def test_every_gap_says_why():
    for name in paper.TABLES:
        frame = paper.table(name)
        gaps = frame[frame[["mAP", "rank-1"]].isna().any(axis=1)]
        assert gaps["note"].str.contains("lost|not reported").all(), name
    frame = paper.table("table1")
    lost = frame[frame["note"].str.startswith("lost")].set_index("method")
    assert lost["rank-1"].to_dict() == {"AAformer [17]": 95.4, "FusionReID": 96.3}
    assert set(lost["dataset"]) == {"market1501"}
    assert (
        lost["mAP"].dropna().to_dict() == {"FusionReID": 91.7}
        and "the authors published" in lost["note"].iloc[1]
    )


def test_every_point_of_the_figures_is_there_and_marked():
    frame = paper.table("figure5")
    assert frame.groupby(["dataset", "variant"])["feature"].nunique().eq(7).all()
    assert frame.groupby("dataset")["variant"].nunique().to_dict() == {"market1501": 6, "msmt17": 6}
    for name in ("figure5", "figure6"):
        assert paper.table(name)["note"].str.contains("plotted").all()
    market = entry("figure5", "L = 2", dataset="market1501")
    assert market["mAP"] == entry("table1", "FusionReID*", dataset="market1501")["mAP"]


def test_printed_numbers_stand_where_the_figure_rounds_otherwise():
    printed = paper.table("figure5")
    printed = printed[printed["note"].str.startswith("printed")]
    assert printed["feature"].tolist() == ["cnn_fused", "transformer_fused", "all"]
    for row in printed.itertuples():
        assert row.mAP == entry("table6", "ResNet50 + ViT-B/16*", row.feature)["mAP"]
    assert "(plotted: 65.9 and 85.3)" in printed["note"].iloc[0]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("table1", 60),
        ("table2", 7),
        ("table3", 4),
        ("table4", 4),
        ("table5", 2),
        ("table6", 33),
        ("figure5", 84),
        ("figure6", 5),
        ("differences", 0),
    ],
)
def test_tables_are_whole(name, rows):
    frame = paper.table(name)
    assert len(frame) == rows
    assert not frame.select_dtypes(exclude="number").isna().any(axis=None)
    assert frame[["mAP", "rank-1", "parameters", "FLOPs"]].dtypes.eq(float).all()
    assert frame[["mAP", "rank-1"]].stack().dropna().between(50, 100).all()
    assert (frame["mAP"].fillna(0) <= frame["rank-1"].fillna(100)).all()


def test_accuracies_and_costs_of_variants():
    def of(name, variant, dataset="msmt17"):
        return {
            key[1:]: value
            for key, value in paper.accuracies(name, dataset).items()
            if key[0] == variant
        }

    assert of("table2", "ResNet50") == {("all", "mAP"): 54.3, ("all", "rank-1"): 78.1}
    assert paper.costs("table2").loc["ResNet50", ["parameters", "FLOPs"]].tolist() == [23.5, 4.1]
    assert paper.costs("table3").loc["MFU only", ["parameters", "FLOPs"]].tolist() == [14.2, 0.5]
    assert of("table6", "ResNet50 + ViT-B/16*") == {
        ("cnn_fused", "mAP"): 66.0, ("cnn_fused", "rank-1"): 85.4,
        ("transformer_fused", "mAP"): 67.8, ("transformer_fused", "rank-1"): 85.6,
        ("all", "mAP"): 69.5, ("all", "rank-1"): 86.7,
    }  # fmt: skip
    assert paper.costs("table6").loc["ResNet50 + ViT-B/16*", ["parameters", "FLOPs"]].tolist() == [
        153.8,
        28.1,
    ]
    assert of("table1", "FusionReID*", "market1501")["all", "mAP"] == 91.7
    depth = of("figure5", "L = 1")
    assert (depth["all", "mAP"], depth["cnn", "mAP"]) == (69.0, 54.3)
    assert of("figure5", "L = 1", "market1501")["cnn", "rank-1"] == 94.0
    assert not paper.accuracies("differences", "msmt17") and paper.costs("differences").empty


def test_an_unknown_table_lists_the_known_ones():
    with pytest.raises(ValueError, match="table7.*'table1', 'table2'"):
        paper.table("table7")
