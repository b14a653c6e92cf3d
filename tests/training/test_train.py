"""The loop: the schedule, resuming, determinism, and what happens when things go wrong."""

import errno
import json
import math
import os
import re
import shutil
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fusionreid.config import PAPER_TRAINING, RELEASED_TRAINING, profile
from fusionreid.evaluation.attention import attention_entropy
from fusionreid.files import read_lines
from fusionreid.models import checkpoints
from fusionreid.training import runs, train
from fusionreid.training.losses import PaperObjective
from fusionreid.training.runs import Start, make_run, with_versions

SMOKE = profile("smoke")
RUN = with_versions(make_run(SMOKE, data=replace(SMOKE.data, version="tiny")))
RUN = replace(RUN, train=replace(SMOKE.train, epochs=3, evaluate_every=2))


def run_tiny(tiny_dataset, folder, run=RUN, progress=False, **options):
    return train.train(
        run,
        dataset=tiny_dataset,
        data_root=folder / "data",
        runs_root=folder / "runs",
        device="cpu",
        progress=progress,
        **options,
    )


def test_too_few_people_are_said_before_anything_is_decoded(tiny_dataset, tmp_path):
    run = replace(RUN, train=replace(RUN.train, identities=99))
    people = tiny_dataset.num_identities
    message = rf"batch of 99 identities \(TrainConfig.identities\).* of {people}$"
    with pytest.raises(ValueError, match=message):
        run_tiny(tiny_dataset, tmp_path, run)
    assert not list((tmp_path / "data").rglob("*.images"))


def comparable(path):
    """The lines of metrics.jsonl without how long they took."""
    return [
        {key: value for key, value in row.items() if key != "seconds"}
        for row in read_lines(path / "metrics.jsonl")
    ]


def test_schedule_of_the_released_code():
    expected = np.load(Path(__file__).parents[1] / "fixtures/losses_and_schedule.npz")[
        "schedule_lr"
    ]
    assert np.allclose(
        [train.learning_rate(RELEASED_TRAINING, epoch) for epoch in range(1, 181)],
        expected,
        rtol=1e-9,
    )


def test_schedule_of_the_paper():
    rates = [train.learning_rate(PAPER_TRAINING, epoch) for epoch in range(1, 181)]
    assert rates[0] == pytest.approx(5e-4)
    assert rates[10] == max(rates) == pytest.approx(5e-3)
    assert np.allclose(np.diff(rates[:11]), 4.5e-4)
    assert all(np.diff(rates[10:]) < 0)
    assert rates[10 + 85] == pytest.approx(2.5e-3)  # halfway through the 170 epochs of cosine
    assert 0 < rates[-1] < 1e-6


def test_biases_have_a_rate_of_their_own():
    optimizer = train.make_optimizer(torch.nn.Linear(2, 2), RELEASED_TRAINING)
    assert [group["factor"] for group in optimizer.param_groups] == [1.0, 2.0]
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1]
    rates = np.array([train.learning_rate(RELEASED_TRAINING, epoch) for epoch in range(1, 181)])
    twice = np.array(
        [train.learning_rate(RELEASED_TRAINING, epoch, 2.0) for epoch in range(1, 181)]
    )
    first, end = RELEASED_TRAINING.learning_rate_start, RELEASED_TRAINING.learning_rate_end
    # The same first and last rate; only the part above them that ends at the peak is doubled.
    assert train.learning_rate(RELEASED_TRAINING, 0, 2.0) == first
    assert twice[-1] == rates[-1] == pytest.approx(end)
    ramp, cosine = slice(0, 9), slice(9, 180)
    peak = RELEASED_TRAINING.learning_rate
    assert np.allclose(
        (twice[ramp] - first) / (rates[ramp] - first), (2 * peak - first) / (peak - first)
    )
    assert np.allclose(
        (twice[cosine] - end)[:-1] / (rates[cosine] - end)[:-1], (2 * peak - end) / (peak - end)
    )


def test_a_run_leaves_everything_behind(tiny_dataset, tmp_path):
    folder = run_tiny(tiny_dataset, tmp_path)
    assert {path.name for path in folder.path.iterdir()} == {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "checkpoint.safetensors",
        "average_precision.npz",
        "first_match.npz",
        "result.json",
    }
    assert (
        json.loads((folder.path / "config.json").read_text())["fingerprint"]
        == RUN.fingerprint
        == folder.path.name
    )
    metrics = folder.metrics
    assert list(metrics[metrics.kind == "evaluation"].epoch.unique()) == [2, 3]
    steps = metrics[metrics.kind == "step"]
    terms = [
        f"{term}/{name}" for term in ("cross_entropy", "triplet") for name in folder.model().widths
    ]
    assert np.allclose(steps.loss, steps[terms].sum(axis=1), rtol=1e-5)
    assert folder.result["features"]["all"]["mAP"] == metrics[metrics.feature == "all"].mAP.iloc[-1]
    assert {"fingerprint", "data", "seed", "commit", "device", "seconds", "features"} <= set(
        folder.result
    )
    with np.load(folder.path / "average_precision.npz") as precision:
        for feature, numbers in folder.result["features"].items():
            assert precision[feature].shape == (len(tiny_dataset.query),)
            assert np.nanmean(precision[feature]) == pytest.approx(numbers["mAP"])
    with np.load(folder.path / "first_match.npz") as first:
        for feature, numbers in folder.result["features"].items():
            assert np.mean(first[feature][np.isfinite(first[feature])] == 1) == pytest.approx(
                numbers["rank-1"]
            )


def test_entropies_are_logged_and_change_no_number(tiny_dataset, tmp_path, monkeypatch):
    logged = run_tiny(tiny_dataset, tmp_path / "logged")
    heads = logged.metrics.query("kind == 'attention'")
    assert heads.groupby("epoch").size().to_dict() == dict.fromkeys((2, 3), 8 * 6)
    last = attention_entropy(logged.model(), tiny_dataset.query)
    for key in ("layer", "unit", "branch", "head", "entropy"):
        assert heads[heads["epoch"] == 3][key].tolist() == [row[key] for row in last]
    monkeypatch.setattr(train, "attention_entropy", lambda model, records: [])
    plain = run_tiny(tiny_dataset, tmp_path / "plain")
    rest = [row for row in comparable(logged.path) if row["kind"] != "attention"]
    assert comparable(plain.path) == rest
    expected = checkpoints.tensors(logged.model())
    for name, tensor in checkpoints.tensors(plain.model()).items():
        assert torch.equal(tensor, expected[name]), name


def test_a_finished_run_is_loaded(tiny_dataset, tmp_path):
    first = run_tiny(tiny_dataset, tmp_path)
    stamp = (first.path / "result.json").stat().st_mtime_ns
    again = run_tiny(None, tmp_path)  # not even the data is opened
    assert again.result == first.result
    assert (first.path / "result.json").stat().st_mtime_ns == stamp


def test_progress_is_told_after_each_epoch(tiny_dataset, tmp_path):
    seen = []

    def progress(folder):
        metrics = folder.metrics
        seen.append((metrics["epoch"].max(), folder.finished, set(metrics["kind"])))

    run_tiny(tiny_dataset, tmp_path, progress=progress)
    both = {"step", "epoch"}
    assert seen == [
        (1, False, both),
        (2, False, both | {"evaluation", "attention"}),
        (3, False, both | {"evaluation", "attention"}),
    ]
    run_tiny(tiny_dataset, tmp_path, progress=progress)
    assert len(seen) == 3, "a finished run has no epochs left"


def test_another_data_set_than_the_run_says_is_refused(tiny_dataset, tmp_path):
    other = replace(tiny_dataset, version="other")
    with pytest.raises(ValueError, match="expected synthetic .*tiny, found synthetic other"):
        run_tiny(other, tmp_path)
    run_tiny(tiny_dataset, tmp_path)
    with pytest.raises(ValueError, match="found synthetic other"):
        run_tiny(other, tmp_path)  # the finished run is not taken for one of the other set


def test_sets_that_lie_elsewhere_have_runs_of_their_own(tiny_dataset, tmp_path):
    """Their version is not known from `data_root`, so it is taken from the set that is given."""
    data = replace(RUN.data, name="market1501", size="full", version="")
    run = replace(RUN, data=data, train=replace(RUN.train, epochs=1, warmup_epochs=0))
    sets = [replace(tiny_dataset, name="market1501", version=version) for version in "ab"]
    folders = [run_tiny(dataset, tmp_path, run) for dataset in sets]
    assert [folder.config.data.version for folder in folders] == ["a", "b"]
    assert folders[0].path != folders[1].path


def test_a_camera_of_the_test_alone_has_no_embedding(tiny_dataset, tmp_path):
    """Such a row would keep its random start."""
    seen = [record for record in tiny_dataset.train if record.camera < 3]
    run = replace(RUN, train=replace(RUN.train, epochs=1, warmup_epochs=0))
    folder = run_tiny(replace(tiny_dataset, train=seen), tmp_path, run)
    assert folder.model().num_cameras == 3
    assert tiny_dataset.num_cameras == 6


def test_a_run_that_another_command_trains_is_waited_for(tiny_dataset, tmp_path, monkeypatch):
    other = run_tiny(tiny_dataset, tmp_path / "a")

    @contextmanager
    def waited_for(path):
        shutil.copytree(other.path, path.parent, dirs_exist_ok=True)
        yield

    monkeypatch.setattr(runs, "locked", waited_for)
    monkeypatch.setattr(train, "train_one_epoch", lambda *_, **__: pytest.fail("trained again"))
    assert run_tiny(tiny_dataset, tmp_path / "b").result == other.result


def test_the_lock_is_held_while_training(tiny_dataset, tmp_path, monkeypatch):
    def attempt(*_, **__):
        (lock,) = (tmp_path / "runs").glob("*/*.lock")
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(lock).acquire(timeout=0)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train_one_epoch", attempt)
    with pytest.raises(KeyboardInterrupt):
        run_tiny(tiny_dataset, tmp_path)


def test_numbers_do_not_depend_on_the_number_of_threads(tiny_dataset, tmp_path):
    before, losses = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            folder = run_tiny(tiny_dataset, tmp_path / str(threads))
            assert torch.get_num_threads() == threads and folder.result["device"].endswith(
                "1 threads"
            )
            losses.append(folder.metrics.query("kind == 'step'")["loss"].tolist())
    finally:
        torch.set_num_threads(before)
    assert losses[0] == losses[1]


def test_same_seed_same_numbers_other_seed_others(tiny_dataset, tmp_path):
    first = comparable(run_tiny(tiny_dataset, tmp_path / "a").path)
    assert first == comparable(run_tiny(tiny_dataset, tmp_path / "b").path)
    assert first != comparable(run_tiny(tiny_dataset, tmp_path / "c", replace(RUN, seed=1)).path)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")]
)
def test_resumed_equals_uninterrupted(tiny_dataset, tmp_path, monkeypatch, stop, optimizer, capsys):
    run = replace(RUN, train=replace(RUN.train, optimizer=optimizer))
    whole = run_tiny(tiny_dataset, tmp_path / "whole", run)

    calls = []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 2:  # in the second epoch (an epoch of these data is one step)
            raise stop
        return losses_of(self, *arguments)

    losses_of = PaperObjective.__call__
    monkeypatch.setattr(PaperObjective, "__call__", interrupted)
    with pytest.raises(type(stop) if isinstance(stop, Exception) else stop):
        run_tiny(tiny_dataset, tmp_path / "cut", run)
    assert "last saved epoch is kept" in capsys.readouterr().err
    monkeypatch.undo()
    resumed = run_tiny(tiny_dataset, tmp_path / "cut", run)
    assert comparable(resumed.path) == comparable(whole.path)
    assert resumed.result["features"] == whole.result["features"]
    expected, found = checkpoints.tensors(whole.model()), checkpoints.tensors(resumed.model())
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_slow_saves_leave_epochs_out(tiny_dataset, tmp_path, monkeypatch):
    """A checkpoint that takes a second is not saved again within twenty, but at an evaluation."""
    saved = []
    save = checkpoints.save

    def slow(*arguments, epoch, **options):
        saved.append(epoch)
        save(*arguments, epoch=epoch, **options)
        time.sleep(1)

    monkeypatch.setattr(checkpoints, "save", slow)
    run = replace(RUN, train=replace(RUN.train, epochs=5, evaluate_every=3))
    seen = []
    run_tiny(
        tiny_dataset,
        tmp_path,
        run,
        progress=lambda folder: seen.append(folder.metrics["epoch"].max()),
    )
    assert saved == [1, 3, 5]
    assert seen == [1, 2, 3, 4, 5], "what is not saved is logged"


def test_resuming_keeps_the_loss_scale_of_fp16(tiny_dataset, tmp_path, monkeypatch):
    """The scale grows every step here; a resumed run that began with the first one again would end
    with another.
    """
    monkeypatch.setattr(
        torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**4, growth_interval=1)
    )
    run = replace(RUN, train=replace(RUN.train, precision="fp16"))
    whole, real = run_tiny(tiny_dataset, tmp_path / "whole", run), train.learning_rate
    with monkeypatch.context() as patch:
        patch.setattr(
            train,
            "learning_rate",
            lambda config, epoch, *_: real(config, epoch) if epoch < 3 else 1 / 0,
        )
        with pytest.raises(ZeroDivisionError):
            run_tiny(tiny_dataset, tmp_path / "cut", run)
    resumed = run_tiny(tiny_dataset, tmp_path / "cut", run)
    scales = [checkpoints.read_state(folder.checkpoint)["scaler"] for folder in (whole, resumed)]
    assert scales[0] == scales[1] and scales[0]["scale"] == 2.0**7  # doubled in each of three steps
    assert comparable(resumed.path) == comparable(whole.path)


def test_a_line_cut_short_is_logged_again(tiny_dataset, tmp_path, monkeypatch):
    whole = comparable(run_tiny(tiny_dataset, tmp_path / "whole").path)
    monkeypatch.setattr(train.RunFolder, "write_result", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_tiny(tiny_dataset, tmp_path / "cut")
    monkeypatch.undo()
    path = tmp_path / "cut/runs" / RUN.fingerprint
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "st')
    finished = run_tiny(tiny_dataset, tmp_path / "cut")
    assert comparable(finished.path) == whole
    assert finished.result["features"]["all"]["mAP"] == whole[-7]["mAP"]


def test_a_loss_that_is_not_finite_is_named(tiny_dataset, tmp_path, monkeypatch):
    def broken(self, output, identities):
        losses = losses_of(self, output, identities)
        return losses | {"triplet/cnn_refined": losses["triplet/cnn_refined"] * math.nan}

    losses_of = PaperObjective.__call__
    monkeypatch.setattr(PaperObjective, "__call__", broken)
    with pytest.raises(
        FloatingPointError, match="diverged: triplet/cnn_refined is nan at epoch 1, step 0"
    ):
        run_tiny(tiny_dataset, tmp_path)


def test_the_first_loss_of_an_epoch_that_is_not_finite_is_named():
    steps = []

    def objective(output, identities):
        steps.append(len(steps))
        loss = output.features["cnn"].sum() * (math.nan if len(steps) >= 4 else 1)
        return {"cross_entropy/cnn": loss}

    model = train.build_model(replace(RUN.model, transformer=None), 4)
    optimizer = train.make_optimizer(model, RUN.train)
    batch = torch.randn(2, 3, 64, 32), torch.tensor([0, 1]), torch.tensor([0, 0])
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    with pytest.raises(FloatingPointError, match="cross_entropy/cnn is nan at epoch 1, step 3"):
        train.train_one_epoch(model, [batch] * 6, optimizer, scaler, RUN.train, 1, objective)


def test_weights_broken_by_the_last_step_are_named_and_not_saved(
    tiny_dataset, tmp_path, monkeypatch, capsys
):
    def broken(model, *arguments, **options):
        lines = one_epoch(model, *arguments, **options)
        if arguments[4] == 2:
            model.fusion.refine["cnn"].act1.weight.data.fill_(math.inf)
        return lines

    one_epoch = train.train_one_epoch
    monkeypatch.setattr(train, "train_one_epoch", broken)
    with pytest.raises(FloatingPointError, match="act1.weight is not finite after epoch 2"):
        run_tiny(tiny_dataset, tmp_path)
    folder = tmp_path / "runs" / RUN.fingerprint
    assert checkpoints.read_state(folder / "checkpoint.safetensors")["epoch"] == 1
    assert "same command continues" not in capsys.readouterr().err


def test_an_epoch_is_saved_before_it_is_ranked(tiny_dataset, tmp_path, monkeypatch):
    whole = run_tiny(tiny_dataset, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(train, "evaluate", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_tiny(tiny_dataset, tmp_path / "cut")
    path = tmp_path / "cut/runs" / RUN.fingerprint
    assert checkpoints.read_state(path / "checkpoint.safetensors")["epoch"] == 2
    assert comparable(run_tiny(tiny_dataset, tmp_path / "cut").path) == comparable(whole.path)


def never(*arguments, **options):
    pytest.fail("it trained")


def test_a_set_that_cannot_be_ranked_is_refused_before_training(
    tiny_dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr(train, "train_one_epoch", never)
    one_camera = [record._replace(camera=0) for record in tiny_dataset.gallery]
    query = [record for record in tiny_dataset.query if record.camera == 0]
    lonely = replace(tiny_dataset, query=query, gallery=one_camera)
    with pytest.raises(ValueError, match="expected queries with a match .* camera numbers right"):
        run_tiny(lonely, tmp_path)


@pytest.mark.parametrize("split", ["query", "gallery"])
def test_an_unreadable_picture_is_named_before_training(tiny_dataset, tmp_path, monkeypatch, split):
    monkeypatch.setattr(train, "train_one_epoch", never)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    records = list(getattr(tiny_dataset, split))
    records[0] = records[0]._replace(path=broken)
    with pytest.raises(ValueError, match="broken.png: expected an image"):
        run_tiny(replace(tiny_dataset, **{split: records}), tmp_path)


@pytest.mark.parametrize("people", [0, 1])
def test_fewer_than_two_identities_are_an_error(people, tiny_dataset, tmp_path):
    lonely = replace(
        tiny_dataset, train=[record for record in tiny_dataset.train if record.identity < people]
    )
    with pytest.raises(ValueError, match=f"training images are of {people}$"):
        run_tiny(lonely, tmp_path)


@pytest.mark.skipif(os.name != "posix" or not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("theirs", [False, True])
def test_a_full_disk_is_named(tiny_dataset, tmp_path, monkeypatch, theirs):
    def full(content, path, metadata):
        if theirs:
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        Path("/dev/full").open("wb", buffering=0).write(b"x")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match="cannot write: .*No space left on device") as caught:
        run_tiny(tiny_dataset, tmp_path)
    assert caught.value.filename.endswith("checkpoint.safetensors")
    assert not list((tmp_path / "runs").rglob("*.safetensors"))


def test_the_bar_says_images_a_second_and_the_time_left(
    tiny_dataset, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    monkeypatch.setattr(train, "tqdm", partial(train.tqdm, mininterval=0))
    run_tiny(tiny_dataset, tmp_path, progress=True)
    assert re.search(r"1/3 \[00:\d\d<00:\d\d, .*, \d+ images/s\]", capsys.readouterr().err)


def test_what_was_loaded_from_a_file_is_said_and_kept(tiny_dataset, tmp_path, capsys):
    torch.save(
        train.build_model(RUN.model, 4, 6).branches["cnn"].base.state_dict(), tmp_path / "cnn.pth"
    )
    folder = run_tiny(
        tiny_dataset, tmp_path, replace(RUN, cnn_start=Start(str(tmp_path / "cnn.pth")))
    )
    said = (folder.path / "weights.txt").read_text()
    assert said.startswith(f"cnn: {tmp_path / 'cnn.pth'}: ") and said in capsys.readouterr().out


def test_a_checkpoint_of_another_model_is_refused(tiny_dataset, tmp_path):
    folder = run_tiny(tiny_dataset, tmp_path)
    other = train.build_model(replace(RUN.model, fusion=None), 4, 6)
    with pytest.raises(ValueError, match="does not fit the model"):
        checkpoints.restore(folder.checkpoint, other)
    (tmp_path / "broken.safetensors").write_bytes(folder.checkpoint.read_bytes()[:1000])
    with pytest.raises(ValueError, match="broken.safetensors: expected a safetensors checkpoint"):
        checkpoints.load(tmp_path / "broken.safetensors")
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        checkpoints.load(tmp_path / "nowhere.safetensors")


def cut_off(tiny_dataset, folder, monkeypatch):
    """A run that stopped in its third epoch; its folder."""
    with monkeypatch.context() as patch:
        patch.setattr(
            train, "learning_rate", lambda config, epoch, *_: 1e-3 if epoch < 3 else 1 / 0
        )
        with pytest.raises(ZeroDivisionError):
            run_tiny(tiny_dataset, folder)
    return folder / "runs" / RUN.fingerprint


def rewritten(path, change):
    """Writes a checkpoint again, its tensors and metadata changed."""
    with safe_open(path, framework="pt") as file:
        content, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()
    change(content, metadata)
    save_file(content, path, metadata=metadata)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t, _: t[min(t)].fill_(torch.nan), "not finite"),
        (lambda _, m: m.update(state="{"), "damaged or other file"),
        (lambda _, m: m.update(state="[]"), "cannot continue"),
        (lambda _, m: m.update(state="{}"), "KeyError: 'epoch'"),
        (lambda _, m: m.pop("state"), "KeyError: 'state'"),
    ],
)
def test_a_damaged_checkpoint_is_not_resumed(
    tiny_dataset, tmp_path, monkeypatch, capsys, change, message
):
    path = cut_off(tiny_dataset, tmp_path, monkeypatch) / "checkpoint.safetensors"
    rewritten(path, change)
    capsys.readouterr()
    with pytest.raises(ValueError, match=message) as error:
        run_tiny(tiny_dataset, tmp_path)
    assert "continues from there" not in capsys.readouterr().err
    assert str(path) in str(error.value) and "--restart" in str(error.value)
    assert run_tiny(tiny_dataset, tmp_path, resume=False).finished


@pytest.mark.parametrize("line", ["[]", "{}", "3", '{"kind": "step"}'])
def test_damaged_metrics_are_not_continued(tiny_dataset, tmp_path, monkeypatch, line):
    path = cut_off(tiny_dataset, tmp_path, monkeypatch) / "metrics.jsonl"
    path.write_text(f"{line}\n{path.read_text()}")
    with pytest.raises(ValueError, match="metrics.jsonl: cannot continue .*--restart"):
        run_tiny(tiny_dataset, tmp_path)
    assert run_tiny(tiny_dataset, tmp_path, resume=False).finished


def test_a_run_without_its_result_is_evaluated_again(tiny_dataset, tmp_path, monkeypatch):
    folder = run_tiny(tiny_dataset, tmp_path)
    expected, metrics = folder.result, comparable(folder.path)
    (folder.path / "result.json").unlink()
    monkeypatch.setattr(train, "train_one_epoch", lambda *_, **__: pytest.fail("trained again"))
    assert run_tiny(tiny_dataset, tmp_path).result["features"] == expected["features"]
    assert comparable(folder.path) == metrics


def test_a_run_that_begins_anew_forgets_the_old_one_at_once(tiny_dataset, tmp_path, monkeypatch):
    path = cut_off(tiny_dataset, tmp_path, monkeypatch)
    (path / "without_cameras.json").touch()
    monkeypatch.setattr(PaperObjective, "__call__", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_tiny(tiny_dataset, tmp_path, resume=False)
    assert not (path / "checkpoint.safetensors").exists()
    assert not (path / "without_cameras.json").exists()


def test_leftovers_of_a_killed_writer_go(tiny_dataset, tmp_path, monkeypatch):
    path = cut_off(tiny_dataset, tmp_path, monkeypatch)
    for leftover in (
        ".checkpoint.safetensors.abc.safetensors",
        ".tmpAbc123",
    ):  # ours, and that of safetensors
        (path / leftover).write_bytes(b"half")
    run_tiny(tiny_dataset, tmp_path)
    assert not list(path.glob(".*"))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_resumed_run_does_not_hold_the_old_checkpoint(tiny_dataset, tmp_path, monkeypatch):
    """A file that is mapped stays on the disk after another one has replaced it: a third copy at
    the next save.
    """
    cut_off(tiny_dataset, tmp_path, monkeypatch)
    mapped, save = [], checkpoints.save

    def noted(*args, **state):
        mapped.extend(
            line
            for line in Path("/proc/self/maps").read_text().splitlines()
            if str(tmp_path) in line
        )
        save(*args, **state)

    monkeypatch.setattr(checkpoints, "save", noted)
    assert run_tiny(tiny_dataset, tmp_path).finished
    assert not [line for line in mapped if "checkpoint" in line] and [
        line for line in mapped if ".images" in line
    ]
