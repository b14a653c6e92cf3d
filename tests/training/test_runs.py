"""Runs: what their fingerprint depends on, and what branches start from."""

from dataclasses import replace

import pytest

from fusionreid import paths
from fusionreid.config import PAPER, profile
from fusionreid.files import write_json
from fusionreid.training.runs import RunConfig, Start, make_run, read_result, with_versions

DEMO, FULL = profile("demo"), profile("paper")


def test_fingerprints_name_what_the_numbers_depend_on(tmp_path):
    run = make_run(DEMO)
    assert run.fingerprint == make_run(DEMO).fingerprint
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "cnn.pth").write_bytes(b"weights")
    start = Start(str(tmp_path / "a" / "cnn.pth")).with_version("resnet50")
    others = [
        replace(run, seed=1),
        replace(run, data=replace(run.data, seed=1)),
        replace(run, data=replace(run.data, version="v1000")),
        replace(run, train=replace(run.train, epochs=21)),
        replace(run, model=replace(run.model, stride=16)),
        replace(run, cnn_start=Start("imagenet", "tv_in1k")),
        replace(run, cnn_start=start),
    ]
    assert len({run.fingerprint, *(other.fingerprint for other in others)}) == 8
    elsewhere = Start(str(tmp_path / "b" / "cnn.pth")).with_version("resnet50")
    moved = replace(run, cnn_start=elsewhere)
    assert moved.fingerprint == others[-1].fingerprint
    assert str(tmp_path) not in str(moved.to_dict())


def test_a_start_is_named_by_its_version(tmp_path, monkeypatch):
    monkeypatch.setattr("fusionreid.paths.DATA", tmp_path)
    assert str(Start("imagenet").with_version("resnet50")) == "imagenet:tv_in1k"
    assert str(Start().with_version("resnet50")) == "random"
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        Start("nowhere.pth").with_version("resnet50")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "resnet50.pth").write_bytes(b"weights")
    own = Start("imagenet").with_version("resnet50")
    assert own.source.endswith("resnet50.pth") and len(own.version) == 12
    assert str(Start("imagenet").with_version("resnet101")) == "imagenet:tv_in1k"


def test_a_profile_says_what_branches_start_from():
    full = make_run(FULL)
    assert full.cnn_start.source == full.transformer_start.source == "imagenet"
    assert make_run(FULL, replace(PAPER, cnn=None)).cnn_start.source == "random"
    stand_in = str(paths.WEIGHTS / "test_resnet_small.safetensors")
    assert make_run(DEMO).cnn_start.source == stand_in
    assert make_run(profile("smoke")).cnn_start.source == "random"
    assert make_run(FULL, weights={"resnet50": "other.pth"}).cnn_start.source == "other.pth"
    without_stand_in = make_run(DEMO, replace(PAPER, cnn="resnet18"))
    assert without_stand_in.cnn_start.source == "random"


def test_weights_for_an_unknown_backbone_are_an_error():
    with pytest.raises(ValueError, match="'resnet5O' is not known; it is one of: 'resnet50', 'vit"):
        make_run("smoke", weights={"resnet5O": "typo.pth"})


def test_a_run_is_described_without_reading_a_file(monkeypatch):
    """`make_run` reads nothing; `with_versions` does."""

    def refuse(*arguments, **options):
        raise AssertionError("a file was read")

    for name in ("builtins.open", "os.stat", "pathlib.Path.is_file", "pathlib.Path.exists"):
        monkeypatch.setattr(name, refuse)
    run = make_run("demo")
    monkeypatch.undo()
    assert run.cnn_start.version == "" and with_versions(run).cnn_start.version


@pytest.mark.filterwarnings("ignore:.*Is the set complete")
def test_other_files_are_another_run(tmp_path):
    image = tmp_path / "data" / "market1501" / "query" / "0001_c1s1_000001_00.jpg"
    for name in (
        "bounding_box_train/0002_c1s1_000001_00.jpg",
        "bounding_box_test/0001_c2s1_000001_00.jpg",
        image,
    ):
        path = tmp_path / "data" / "market1501" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    half = with_versions(make_run(FULL), tmp_path / "data")
    image.with_name("0001_c1s1_000002_00.jpg").touch()
    whole = with_versions(make_run(FULL), tmp_path / "data")
    assert half.fingerprint != whole.fingerprint
    assert with_versions(half, tmp_path / "data") == half  # a version that is known stays
    assert with_versions(make_run(FULL), tmp_path / "nowhere").data.version == ""
    assert with_versions(make_run(DEMO)).data.version.startswith("v")


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
