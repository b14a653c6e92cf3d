"""The command line: options become the run they say; wrong ones are one line that names them."""

import errno
import json
import re
import shutil
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from released_checkpoint import released_tensors

from fusionreid import build_model, jobs, paths
from fusionreid.__main__ import main, parser, run_of
from fusionreid.config import PAPER, PAPER_TRAINING, RELEASED, profile
from fusionreid.evaluation.verification import Calibration
from fusionreid.models import checkpoints
from fusionreid.paper import recorded
from fusionreid.paper.experiments import EXPERIMENTS
from fusionreid.training import trained
from fusionreid.training.runs import make_run
from fusionreid.training.train import learning_rate


def run(*options):
    return run_of(parser().parse_args(["train", *options]))


def test_default_options_are_the_profile_s_run(monkeypatch):
    assert run() == make_run(profile("demo"), PAPER)
    assert run("--profile", "paper").cnn_start.source == "imagenet"
    monkeypatch.setenv("FUSIONREID_PROFILE", "smoke")
    assert run() == make_run(profile("smoke"), PAPER)
    assert run("--profile", "demo").data.size == "demo"


@pytest.mark.filterwarnings("ignore:.*not as published")
def test_data_check_names_every_picture_that_cannot_be_read(tmp_path, capsys):
    names = [
        "bounding_box_train/0002_c1s1_000001_00.jpg",
        "query/0001_c1s1_000001_00.jpg",
        "bounding_box_test/0001_c2s1_000001_00.jpg",
        "bounding_box_test/0001_c3s1_000001_00.jpg",
    ]
    for name in names:
        path = tmp_path / "market1501" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 16)).save(path)
    assert main(["data", "check", "market1501", "--root", str(tmp_path)]) == 0
    assert "0 of 4 pictures cannot be read" in capsys.readouterr().out
    (tmp_path / "market1501" / names[1]).write_bytes(b"")
    (tmp_path / "market1501" / names[3]).write_bytes(b"no picture")
    assert main(["data", "check", "market1501", "--root", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "2 of 4 pictures cannot be read" in printed
    assert f"{names[1]}: expected an image" in printed and f"{names[3]}: expected" in printed


def test_options_of_training_and_of_a_draw_reach_the_run():
    options = "--learning-rate 0.003 --identities 4 --images 6 --size full --data-seed 2"
    given = run("--dataset", "market1501", *options.split())
    assert (given.train.learning_rate, given.train.identities, given.train.images) == (0.003, 4, 6)
    assert (given.data.name, given.data.size, given.data.seed) == ("market1501", "full", 0)
    draw = run("--profile", "paper", "--size", "demo", "--data-seed", "2")
    assert (draw.data.name, draw.data.size, draw.data.seed) == ("market1501", "demo", 2)


def test_options_reach_the_run(tmp_path):
    (tmp_path / "vit.pth").touch()
    what = "--profile paper --dataset msmt17 --cnn resnet101 --stride 16 --image-size 384 128"
    how = "--epochs 12 --precision bf16 --seed 3 --released --transformer-weights"
    given = run(*what.split(), *how.split(), str(tmp_path / "vit.pth"))
    assert (given.data.name, given.seed, given.cnn_start.source) == ("msmt17", 3, "imagenet")
    assert given.transformer_start.source == str(tmp_path / "vit.pth")
    assert (given.model.cnn, given.model.stride, given.model.image_size) == (
        "resnet101",
        16,
        (384, 128),
    )
    assert given.model.fusion == RELEASED.fusion
    assert (given.train.epochs, given.train.precision) == (12, "bf16")
    assert (given.train.schedule, given.train.bias_learning_rate) == ("released", 2)
    assert run("--cnn", "none").model.cnn is None
    assert run("--released").train.precision == "fp16"
    assert run("--profile", "paper-bf16").train == replace(PAPER_TRAINING, precision="bf16")


def test_few_epochs_have_a_short_warm_up():
    one = run("--profile", "paper", "--epochs", "1").train
    assert (one.epochs, one.warmup_epochs) == (1, 0) and learning_rate(one, 1) == 5e-3
    assert run("--profile", "paper", "--epochs", "60").train.warmup_epochs == 10
    assert run("--profile", "paper", "--warmup-epochs", "5").train.warmup_epochs == 5


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("train --profile huge", "argument --profile: invalid choice: 'huge'"),
        ("train --seed -1", "argument --seed: expected a whole number from 0, found '-1'"),
        ("train --epochs few", "argument --epochs: invalid int value: 'few'"),
        (
            "train --image-size 100000 100000",
            "argument --image-size: expected a whole number from 16 to 4096",
        ),
        (
            "train --device meta",
            "argument --device: expected a device of this machine, found 'meta'",
        ),
        (
            "train --device bogus",
            "argument --device: expected a device of this machine, found 'bogus'",
        ),
        (
            "evaluate x --dataset synthetic --device cuda:77",
            "argument --device: expected a device of this machine",
        ),
        (
            "experiments table4 --seeds 0 -1",
            "argument --seeds: expected a whole number from 0, found '-1'",
        ),
        (
            "experiments table4 --devices cuda:77",
            "argument --devices: expected a device of this machine",
        ),
        ("experiments table4 --cluster junk", "argument --cluster: invalid choice: 'junk'"),
        (
            "experiments table4 --processes 0",
            "argument --processes: expected a whole number from 1, found '0'",
        ),
    ],
)
def test_a_wrong_value_names_its_option(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments.split())
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and message in line


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (
            "train --profile paper --cnn-weights random --transformer-weights random",
            1,
            "bounding_box_train",
        ),
        (
            "train --profile smoke --cnn-weights no.pth",
            1,
            "weights 'no.pth': expected 'random', 'imagenet' or a file",
        ),
        ("train --profile smoke --epochs 3 --warmup-epochs 3", 2, "fewer than epochs=3"),
        ("train --profile smoke --epochs 0", 2, "fewer than epochs=0"),
        ("train --profile smoke --images 1", 2, "images=1; expected a whole number from 2"),
        ("train --profile smoke --precision int8", 2, "it is one of: 'float32', 'bf16', 'fp16'"),
        (
            "train --profile smoke --cnn none --cnn-weights random",
            2,
            "weights: backbone='none' is not known; it is one of: None, 'vit_base",
        ),
        (
            "evaluate nowhere.pth --dataset synthetic",
            1,
            "model 'nowhere.pth': expected 'demo', a run",
        ),
        ("experiments table7", 2, "'table7' is not known; it is one of: 'table1'"),
        ("experiments table5 --rows GMP", 2, "row='GMP' is not known; it is one of: 'GeM', 'GAP'"),
        (
            "experiments table5 --job gpus_per_node 1",
            2,
            "--job gpus_per_node 1: expected --cluster with it",
        ),
        (
            "experiments all --profile paper --dataset market1501 --data-seeds 0 1",
            2,
            "--data-seeds [0, 1]: the whole of market1501 has no draws",
        ),
        ("data check market1501", 1, "market1501: "),
        ("data check cuhk03", 2, "data set 'cuhk03' is not known; it is one of: 'market1501'"),
        ("train --dataset cuhk03", 2, "data set 'cuhk03' is not known; it is one of: 'market1501'"),
        ("evaluate demo --dataset cuhk03", 2, "or a set of your own: a folder "),
        ("experiments table5 --dataset cuhk03", 2, "cuhk03.csv with the columns path, identity"),
        (
            "train --start demo --stride 16",
            2,
            "--start demo: its model is taken, and all its weights; expected no option",
        ),
        ("train --start nowhere", 1, "model 'nowhere': expected 'demo', a run"),
    ],
)
def test_other_errors_are_one_message(arguments, code, message, tmp_path, capsys):
    assert main([*arguments.split(), "--data-root", str(tmp_path)]) == code
    if arguments.startswith("data"):
        assert main([*arguments.split(), "--root", str(tmp_path)]) == code
    error = capsys.readouterr().err
    assert message in error and error.startswith("fusionreid: ") and "Traceback" not in error


def test_no_notebook_runs_on_an_unknown_set(capsys):
    assert main(["reproduce", "--dataset", "cuhk03"]) == 2
    assert "data set 'cuhk03' is not known; it is one of: 'market1501'" in capsys.readouterr().err


def test_a_wrong_profile_in_the_environment_is_an_error(monkeypatch, capsys):
    monkeypatch.setenv("FUSIONREID_PROFILE", "tiny")
    assert main(["train"]) == 2
    assert "'tiny' is not known; it is one of: 'smoke', 'demo', 'paper'" in capsys.readouterr().err


def test_a_trained_checkpoint_is_evaluated(tiny_dataset, tmp_path, monkeypatch, capsys):
    config = replace(profile("smoke").scale(RELEASED), cnn="resnet18", transformer=None)
    torch.save(released_tensors(build_model(config, 4)), tmp_path / "theirs.pth")
    monkeypatch.setattr("fusionreid.data.datasets.open_data", lambda config, root: tiny_dataset)
    arguments = [
        "evaluate",
        str(tmp_path / "theirs.pth"),
        "--dataset",
        "market1501",
        "--data-root",
        str(tmp_path),
    ]
    assert main(arguments) == 0 and "market1501" in capsys.readouterr().out


@pytest.fixture
def searched(tiny_dataset, tmp_path):
    """A `search` command for one picture of the tiny set in the set's own folder."""
    torch.manual_seed(0)  # of some random weights two of these pictures have one vector
    checkpoints.save(tmp_path / "model.safetensors", build_model(profile("smoke").scale(PAPER), 4))
    query = str(tiny_dataset.gallery[7].path)
    options = {
        "--model": tmp_path / "model.safetensors",
        "--index": tmp_path / "index",
        "--to": tmp_path / "sheet.png",
        "--device": "cpu",
        "--top": 2,
    }
    command = ["search", str(tiny_dataset.root), query]
    for name, value in options.items():
        command += [name, str(value)]
    return command


def test_a_folder_is_searched_from_a_shell(searched, tmp_path, capsys):
    query = searched[2]
    assert main(searched) == 0
    written = capsys.readouterr()
    named, first, second, last = written.out.strip().splitlines()
    assert re.fullmatch(r"60 images in [\d.]+ s, [\d,]+ images/s\n", written.err)
    assert named == query
    assert first.split() == ["1.0000", query]
    assert float(second.split()[0]) < 1
    assert last.startswith("60 pictures searched")
    assert (tmp_path / "sheet.png").is_file()
    assert any((tmp_path / "index").iterdir())
    assert main(searched) == 0
    assert capsys.readouterr().err == "", "nothing new was embedded"


def test_a_search_prints_probabilities_where_the_model_is_calibrated(searched, tmp_path, capsys):
    source = tmp_path / "model.safetensors"
    lines = {True: Calibration(0, 9), False: Calibration(4, -4)}  # a picture has no camera
    trained.write_calibrations(source, trained.load(source, "cpu"), "", lines)
    assert main(searched) == 0
    _, first, second, _, last = capsys.readouterr().out.strip().splitlines()
    assert first.split()[:4] == ["1.0000", "same", "person:", "0.50"]
    cosine = float(second.split()[0])
    assert float(second.split()[3]) == pytest.approx(1 / (1 + np.exp(4 - 4 * cosine)), abs=0.006)
    assert "50%" in last
    assert main([*searched, "--prior", "0.1"]) == 0
    _, first, _, _, last = capsys.readouterr().out.strip().splitlines()
    assert first.split()[3] == "0.10" and "10%" in last
    assert main([*searched, "--prior", "7"]) == 2
    assert "prior=7.0; expected a number from 0 to 1" in capsys.readouterr().err


def test_the_contact_sheet_is_of_the_kind_that_its_ending_says(searched, tmp_path, capsys):
    assert main([*searched, "--to", str(tmp_path / "new" / "sheet.jpg")]) == 0
    assert Image.open(tmp_path / "new" / "sheet.jpg").format == "JPEG"
    index = Path(searched[searched.index("--index") + 1])
    assert not (index / "sheets.json").exists(), "it does not lie among the pictures"
    capsys.readouterr()
    for name in ("sheet.txt", "sheet", "index"):
        assert main([*searched, "--to", str(tmp_path / name)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "the ending of --to=" in line
        assert "it is one of: '.avif', '.bmp', '.gif', '.jfif'" in line


def test_a_contact_sheet_is_nobody_that_a_search_finds(searched, tmp_path, monkeypatch, capsys):
    people = tmp_path / "people"
    shutil.copytree(searched[1], people)
    command, _, query, *options = searched
    monkeypatch.chdir(people)
    own = [command, ".", query, "--model", options[1], "--device", "cpu", "--top", "99"]
    for sheet in ("search.png", "search.png", "other.jpg", "search.png"):
        assert main([*own, "--to", sheet]) == 0
        found = capsys.readouterr().out
        assert "60 pictures searched" in found and (people / sheet).is_file()
        assert "  search.png" not in found and "  other.jpg" not in found
    # The features may lie elsewhere, and the folder may be moved.
    moved = people.rename(tmp_path / "moved")
    assert main([command, str(moved), query, *options]) == 0
    assert "62 pictures searched" in capsys.readouterr().out  # of another index, which knows none
    assert main([*own[:1], str(moved), *own[2:], "--to", str(tmp_path / "new.png")]) == 0
    assert "60 pictures searched" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_names_the_option(searched, monkeypatch, capsys):
    real = Path.mkdir

    def read_only(path, *arguments, **options):
        if path.name == ".fusionreid":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        real(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", read_only)
    place = searched.index("--index")
    assert main([*searched[:place], *searched[place + 2 :]]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    folder = Path(searched[1]) / ".fusionreid"
    assert line.startswith(f"fusionreid: {folder}: Permission denied")
    assert "--index FOLDER" in line
    assert main(searched) == 0


def test_a_search_without_its_pictures_names_them(searched, tmp_path, capsys):
    nowhere = str(tmp_path / "none.png")
    command, gallery, query, *options = searched
    assert main([command, gallery, nowhere, *options]) == 1
    assert capsys.readouterr().err == f"fusionreid: {nowhere}: No such file or directory\n"
    assert main([command, str(tmp_path / "none"), query]) == 2
    assert "none: expected a folder of pictures, found nothing" in capsys.readouterr().err


def test_a_run_that_is_not_finished_is_not_exported(tmp_path, capsys):
    model = build_model(profile("smoke").scale(PAPER), 4)
    checkpoints.save(tmp_path / "run" / "checkpoint.safetensors", model)
    assert main(["export", str(tmp_path / "run"), "--to", str(tmp_path / "out.safetensors")]) == 1
    assert "expected the folder of a finished run" in capsys.readouterr().err


def test_a_graph_of_a_run_that_is_not_finished_is_exported_with_a_warning(
    tmp_path, monkeypatch, capsys
):
    model = build_model(profile("smoke").scale(PAPER), 4)
    checkpoints.save(tmp_path / "run" / "checkpoint.safetensors", model)
    monkeypatch.setattr("fusionreid.evaluation.export.export", lambda model, path: path.touch())
    assert main(["export", str(tmp_path / "run"), "--to", str(tmp_path / "out.onnx")]) == 0
    written = capsys.readouterr()
    assert "out.onnx" in written.out and (tmp_path / "out.onnx").is_file()
    assert "fusionreid: warning: " in written.err and "is not finished" in written.err


@pytest.mark.parametrize("name", ["out.pth", "out.pt2", "out"])
def test_an_exported_file_is_safetensors_or_onnx(name, tmp_path, capsys):
    assert main(["export", "demo", "--to", str(tmp_path / name)]) == 2
    found = f"the ending of --to='{Path(name).suffix}' is not known"
    expected = f"{found}; it is one of: '.safetensors', '.onnx'\n"
    assert capsys.readouterr().err.endswith(expected) and not any(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--data-root", "--runs-root", "RECORDED", "DATA", "RUNS"])
def test_a_file_is_no_folder(option, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("hello")
    if option.isupper():
        monkeypatch.setattr(paths, option, tmp_path / "file")
    given = [] if option.isupper() else [option, str(tmp_path / "file")]
    assert main(["experiments", "table5", "--status", *given]) == 1
    assert (
        capsys.readouterr().err
        == f"fusionreid: {tmp_path / 'file'}: expected a folder, found a file\n"
    )


def test_a_parameter_that_is_half_a_literal(capsys):
    assert main(["reproduce", "-p", "SEEDS", "[0,"]) == 2
    assert (
        capsys.readouterr().err == "fusionreid: expected a value as Python writes it, found '[0,'\n"
    )


def test_a_warning_is_one_line(tiny_dataset, tmp_path, monkeypatch, capsys):
    warn = partial(warnings.warn, "two sets;\nthe first is read", stacklevel=1)
    monkeypatch.setattr("fusionreid.__main__.print_percent", lambda _: warn())
    monkeypatch.setattr("fusionreid.data.datasets.open_data", lambda *_: tiny_dataset)
    monkeypatch.setattr("fusionreid.__main__.cross_domain", lambda *_, **__: None)
    assert main(["evaluate", "demo", "--dataset", "synthetic", "--data-root", str(tmp_path)]) == 0
    assert capsys.readouterr().err == "fusionreid: warning: two sets; the first is read\n"


def test_training_from_a_shell(tiny_dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("fusionreid.training.train.open_data", lambda config, root: tiny_dataset)
    roots = ["--data-root", str(tmp_path), "--runs-root", str(tmp_path)]
    assert main(["train", "--profile", "smoke", "--epochs", "1", "--device", "cpu", *roots]) == 0
    written = capsys.readouterr().out
    assert "synthetic tiny, seed 0, 1 epochs" in written and "transformer_fused" in written


def write_own(dataset, folder, cameras):
    """A CSV file for the tiny set, in another folder."""
    rows = [f"path,identity,{'camera,' if cameras else ''}split"]
    for split, records in dataset.splits.items():
        for path, identity, camera in records:
            rows.append(f"{path},{identity},{f'{camera},' if cameras else ''}{split}")
    (folder / "mine.csv").write_text("\n".join(rows))
    return str(folder / "mine.csv")


def test_a_set_of_ones_own_trains_fine_tunes_and_is_evaluated(
    tiny_dataset, tmp_path, monkeypatch, capsys
):
    own = write_own(tiny_dataset, tmp_path, cameras=True)
    train = "train --profile smoke --epochs 1 --device cpu --runs-root".split()
    train += [str(tmp_path), "--dataset"]
    assert main([*train, own]) == 0
    written = capsys.readouterr().out
    assert "mine " in written and ", seed 0, 1 epochs" in written
    speed, header, first = written.splitlines()[1:4]
    assert re.fullmatch(r"\d+ images in [\d.]+ s, [\d,]+ images/s", speed)
    assert "mAP without cameras  rank-1 without cameras" in header
    (run,) = tmp_path.glob("*/result.json")
    aware = json.loads(run.read_text())["features"]["all"]["mAP"]
    unaware = json.loads((run.parent / "without_cameras.json").read_text())["all"]["mAP"]
    assert first.split()[1] == f"{100 * aware:.1f}" and first.split()[-2] == f"{100 * unaware:.1f}"

    # From the name alone, of the run's model, and where cameras are not known.
    monkeypatch.chdir(tmp_path)
    write_own(tiny_dataset, tmp_path, cameras=False)
    assert main([*train, "mine", "--root", ".", "--start", str(run.parent)]) == 0
    written = capsys.readouterr().out
    assert "tensors taken; new: 6 classifiers of 4 people, camera embedding of 0" in written
    assert "mine no cameras, " in written and "without cameras" not in written.split("mine no")[1]
    assert len(list(tmp_path.glob("*/result.json"))) == 2
    assert main(["evaluate", str(run.parent), "--dataset", "mine.csv"]) == 0
    written = capsys.readouterr().out
    assert "mine.csv has no cameras: scored without the camera rule" in written
    assert "True" not in written


EXPERIMENTS_OF_TABLE5 = ["experiments", "table5", "--profile", "smoke"]


def test_experiments_train_and_print_their_tables(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(
        jobs, "run_all", lambda *arguments, **options: calls.append((arguments, options))
    )
    command = [*EXPERIMENTS_OF_TABLE5, "--runs-root", str(tmp_path), "--seeds", "0", "3"]
    assert main([*command, "--rows", "GeM", "--devices", "cpu", "--processes", "2"]) == 0
    assert "Table V" in capsys.readouterr().out
    (((names, setting), options),) = calls
    assert names == ["table5"]
    assert (setting.seeds, setting.runs_root) == ((0, 3), tmp_path)
    assert (options["rows"], options["devices"], options["processes"]) == (["GeM"], ["cpu"], 2)
    assert options["cluster"] is None


def test_a_cluster_s_job_is_asked_for_in_literals(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(jobs, "run_all", lambda *_, **options: calls.append(options["cluster"]))
    needs = "--cluster slurm --job gpus_per_node 1 --job slurm_partition low".split()
    assert main([*EXPERIMENTS_OF_TABLE5, "--runs-root", str(tmp_path), *needs]) == 0
    assert calls == [{"cluster": "slurm", "gpus_per_node": 1, "slurm_partition": "low"}]


def test_a_run_that_failed_is_named_and_the_tables_are_still_printed(tmp_path, monkeypatch, capsys):
    def run_all(*_, **__):
        raise jobs.RunsError({"table5: GAP (seed 0)": "ValueError: no"}, 2)

    monkeypatch.setattr(jobs, "run_all", run_all)
    assert main([*EXPERIMENTS_OF_TABLE5, "--runs-root", str(tmp_path)]) == 1
    written = capsys.readouterr()
    assert "1 of 2 runs failed" in written.err and "Table V" in written.out


def test_all_experiments_are_run_and_recorded_on_each_draw(tmp_path, monkeypatch, capsys):
    trained = []
    kept = []
    monkeypatch.setattr(
        jobs, "run_all", lambda names, setting, **_: trained.append((names, setting.data.seed))
    )
    monkeypatch.setattr(recorded, "record", lambda setting, *_: kept.append(setting.data.seed) or 7)
    no_table = SimpleNamespace(markdown=str)
    monkeypatch.setattr("fusionreid.paper.tables.comparison", lambda *_: no_table)
    command = "experiments all --profile smoke --data-seeds 0 2 --record".split()
    assert main([*command, "--runs-root", str(tmp_path)]) == 0 and kept == [0, 2]
    assert trained == [([*EXPERIMENTS, "differences"], seed) for seed in (0, 2)]
    assert "7 runs recorded in" in capsys.readouterr().out


def test_status_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "run_all", None)
    assert main([*EXPERIMENTS_OF_TABLE5, "--runs-root", str(tmp_path), "--status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "fingerprint", "state", "epochs"]
    assert lines[-1].split() == ["missing", "2"]


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "run_all", stop)
    assert main([*EXPERIMENTS_OF_TABLE5, "--runs-root", str(tmp_path)]) == 130
    assert "the same command continues from there" in capsys.readouterr().err


def test_runs_that_failed_in_pretraining_are_one_message(monkeypatch, capsys):
    def fail(*_, **__):
        raise jobs.RunsError({"cnn": "OSError: no space left"}, 2)

    monkeypatch.setattr("fusionreid.pretrain.pretrain", fail)
    assert main(["pretrain"]) == 1
    error = capsys.readouterr().err
    assert "no space left" in error and "Traceback" not in error
