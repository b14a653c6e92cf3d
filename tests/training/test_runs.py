"""Runs: what their fingerprint depends on, and what branches start from."""

import os
from dataclasses import replace

import pytest

from fusionreid import paths
from fusionreid.config import PAPER, DataConfig, profile
from fusionreid.files import write_json
from fusionreid.training.runs import RunConfig, find_start, make_run, read_result

DEMO, FULL = profile("demo"), profile("paper")


def test_fingerprints_name_what_the_numbers_depend_on(tmp_path):
    run = make_run(DEMO)
    assert run.fingerprint == make_run(DEMO).fingerprint
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "cnn.pth").write_bytes(b"weights")
    start = find_start(str(tmp_path / "a" / "cnn.pth"), "resnet50")
    others = [
        replace(run, seed=1),
        replace(run, data=replace(run.data, seed=1)),
        replace(run, data=replace(run.data, version="v1000")),
        replace(run, train=replace(run.train, epochs=21)),
        replace(run, model=replace(run.model, stride=16)),
        replace(run, cnn_start=find_start("imagenet", "resnet50")),
        replace(run, cnn_start=start),
    ]
    assert len({run.fingerprint, *(other.fingerprint for other in others)}) == 8
    moved = replace(run, cnn_start=find_start(str(tmp_path / "b" / "cnn.pth"), "resnet50"))
    assert moved.fingerprint == others[-1].fingerprint
    assert str(tmp_path) not in str(moved.describe())
    assert str(find_start("imagenet", "resnet50")) == "imagenet:tv_in1k"
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        find_start("nowhere.pth", "resnet50")


def test_a_profile_says_what_branches_start_from(tmp_path, monkeypatch):
    monkeypatch.setattr("fusionreid.paths.DATA", tmp_path)
    assert {make_run(FULL).cnn_start.source, make_run(FULL).transformer_start.source} == {
        "imagenet"
    }
    assert make_run(FULL, replace(PAPER, cnn=None)).cnn_start.source == "random"
    own = {"demo": str(paths.WEIGHTS / "test_resnet_small.safetensors"), "smoke": "random"}
    assert {name: make_run(profile(name)).cnn_start.source for name in own} == own
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "resnet50.pth").touch()
    (tmp_path / "other.pth").touch()
    assert make_run(FULL).cnn_start.source.endswith("resnet50.pth")
    assert make_run(FULL).transformer_start.source == "imagenet"
    assert make_run(
        FULL, weights={"resnet50": str(tmp_path / "other.pth")}
    ).cnn_start.source.endswith("other.pth")
    assert make_run(DEMO).cnn_start.source == own["demo"]
    assert (
        make_run(DEMO, replace(PAPER, cnn="resnet18")).cnn_start.source == "random"
    )  # no stand-in of ours


@pytest.mark.filterwarnings("ignore:.*as published has")
def test_other_files_are_another_run_and_runs_are_found_without_the_files(tmp_path):
    image = tmp_path / "data" / "market1501" / "query" / "0001_c1s1_000001_00.jpg"
    for name in (
        "bounding_box_train/0002_c1s1_000001_00.jpg",
        "bounding_box_test/0001_c2s1_000001_00.jpg",
        image,
    ):
        path = tmp_path / "data" / "market1501" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def made(folder="data"):
        return make_run(FULL, data_root=tmp_path / folder, runs_root=tmp_path / "runs")

    half = made()
    image.with_name("0001_c1s1_000002_00.jpg").touch()
    os.utime(image.parent, (1, 1))  # a new date, however fast the test is
    whole = made()
    assert half.fingerprint != whole.fingerprint
    assert made("nowhere").data.version == ""
    finish(half, tmp_path / "runs")
    assert made("nowhere") == half and made() == whole
    finish(
        replace(half, data=DataConfig(name="dukemtmc", size="full", version="other")),
        tmp_path / "runs",
    )
    (tmp_path / "runs" / "damaged").mkdir()
    (tmp_path / "runs" / "damaged" / "result.json").touch()
    assert made("nowhere") == half
    finish(whole, tmp_path / "runs")
    with pytest.warns(
        UserWarning, match="market1501 is not there, and runs are of .*choose DataConfig.version"
    ):
        assert made("nowhere").data.version == ""
    assert make_run(DEMO).data.version.startswith("v")


def finish(run, root):
    """Writes what tells of a finished run."""
    write_json(
        root / run.fingerprint / "config.json", {"fingerprint": run.fingerprint, **run.describe()}
    )
    write_json(root / run.fingerprint / "result.json", {})


def test_run_config_is_hashable():
    assert len({RunConfig(), RunConfig(), RunConfig(seed=1)}) == 2


RESULT = {
    "fingerprint": "0123456789ab",
    "data": {"name": "synthetic", "version": "demo-0, v3"},
    **{"seed": 0, "commit": "abc", "device": "cpu", "seconds": 1.0},
    "features": {"all": {"mAP": 0.5, "rank-1": 0.75}},
}


def test_a_result_is_read_and_a_missing_one_is_none(tmp_path):
    assert read_result("0123456789ab", tmp_path) is None
    write_json(tmp_path / "0123456789ab" / "result.json", RESULT)
    assert read_result("0123456789ab", tmp_path) == RESULT


@pytest.mark.parametrize(
    "damaged, message",
    [
        ({}, "KeyError: 'fingerprint'"),
        ([], "TypeError"),
        (3, "TypeError"),
        (RESULT | {"fingerprint": "b"}, "that of run b"),
        (RESULT | {"data": []}, "TypeError"),
        (RESULT | {"data": {}}, "KeyError: 'name'"),
        (RESULT | {"features": {}}, "KeyError: 'all'"),
        (RESULT | {"features": {"all": []}}, "AttributeError"),
        (RESULT | {"features": {"all": {"mAP": 7}}}, "all/mAP is 7, not a fraction of 1"),
        (
            RESULT | {"features": {"all": {"mAP": float("nan")}}},
            "all/mAP is nan, not a fraction of 1",
        ),
        ({key: value for key, value in RESULT.items() if key != "seed"}, "KeyError: 'seed'"),
    ],
)
def test_a_damaged_result_names_the_file_and_the_remedy(tmp_path, damaged, message):
    path = tmp_path / "0123456789ab" / "result.json"
    write_json(path, damaged)
    with pytest.raises(ValueError, match=message) as error:
        read_result("0123456789ab", tmp_path)
    assert str(error.value).startswith(f"{path}: expected the result of run 0123456789ab")
    assert "delete the file to have the run evaluated again" in str(error.value)
