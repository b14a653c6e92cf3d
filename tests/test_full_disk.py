"""Every writer on a full disk names its file, leaves no half of one, and can go on."""

from __future__ import annotations

import os
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch

from fusionreid import build_model
from fusionreid.config import PAPER, profile
from fusionreid.data import ImageCache
from fusionreid.data.synthetic.build import SIZES, build
from fusionreid.evaluation.gallery import Gallery, write_sheet
from fusionreid.files import write_json
from fusionreid.models import checkpoints
from fusionreid.training.runs import make_run
from fusionreid.training.train import train

SMOKE = profile("smoke")
MODEL = SMOKE.scale(PAPER)


def files(folder):
    """What is there for good: the bytes of each file that is neither a lock nor aside."""
    found = (
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".lock", ".dat")
    )
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def rendering(folder, **_):
    pytest.importorskip("anny")
    tiny = replace(SIZES["smoke"], train=1, test=1, cameras=(1, 1), images=(2, 2), distractors=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "smoke", tiny)
        return files(build(folder, "smoke", processes=1, progress=False))


def decoding(folder, dataset, **_):
    return ImageCache(dataset.query, (64, 32), folder, progress=False).images.tobytes()


def training(folder, dataset, **_):
    data = replace(SMOKE.data, version=dataset.version)
    scale = replace(SMOKE, train=replace(SMOKE.train, epochs=2, evaluate_every=1))
    run = make_run(scale, data=data)
    roots = {"data_root": folder, "runs_root": folder}
    done = train(run, dataset=dataset, device="cpu", progress=False, **roots)
    return (
        done.result["features"],
        done.metrics.drop(columns="seconds").to_csv(),
        done.model().state_dict().keys(),
    )


def embedding(folder, dataset, model, **_):
    gallery = Gallery(folder, model, dataset.gallery, batch_size=5)
    return gallery.paths, gallery.features.tobytes()


def sheet(folder, dataset, **_):
    query = dataset.query[0].path
    write_sheet(folder / "sheet.png", [query], [[(query, 1.0)]])
    return files(folder)


def weights(folder, model, save, name, **_):
    save(folder / name, model)
    return {name: (folder / name).stat().st_size}  # the keys of a header come in any order


def text(folder, **_):
    write_json(folder / "numbers.json", list(range(1000)))
    return files(folder)


WRITERS = {
    "rendering": rendering,
    "decoded cache": decoding,
    "training": training,
    "gallery": embedding,
    "contact sheet": sheet,
    "text": text,
    "checkpoint": partial(weights, save=checkpoints.save, name="a.safetensors"),
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(MODEL, 4, 6).eval()


@pytest.fixture
def disk(tmp_path):
    """Mounts a disk in memory of so many kilobytes, or makes it larger; skips where it may not."""
    (tmp_path / "disk").mkdir()

    def sized(kilobytes):
        options = f"size={kilobytes}k"
        if os.path.ismount(tmp_path / "disk"):
            options = f"remount,{options}"
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", tmp_path / "disk"]
        if subprocess.run(mount).returncode:
            pytest.skip("may not mount a disk")
        return tmp_path / "disk"

    if os.geteuid():
        pytest.skip("only root mounts disks")
    yield sized
    subprocess.run(["umount", tmp_path / "disk"])


def fails(work, folder, expected, full=nullcontext):
    """Whether the work fails; if so, in one line that names a file and the remedy."""
    try:
        with full():
            assert work(folder) == expected
        return False
    except OSError as error:
        said = str(error)
        assert (
            "\n" not in said
            and str(folder) in said
            and ("same command" in said or "Free the disk" in said)
        ), said
    assert not list(folder.rglob(".*.*")), "a temporary file is left"
    if isinstance(expected, dict):
        assert all(
            expected.get(name, content) in (content, len(content))
            for name, content in files(folder).items()
        )
    return True


SLOW = ("graph", "rendering")


@pytest.mark.parametrize(
    "writer",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in WRITERS],
)
def test_what_does_not_fit_is_named_and_the_same_command_goes_on(
    writer, tiny_dataset, model, tmp_path, full_disk
):
    work = partial(WRITERS[writer], dataset=tiny_dataset, model=model)
    whole, place = tmp_path / "whole", tmp_path / "place"
    whole.mkdir(), place.mkdir()
    expected = work(whole)
    sizes = sorted({len(content) for content in files(whole).values()})
    for size in (1, *sizes):  # each file in turn lacks a byte
        assert fails(work, place, expected, partial(full_disk, size - 1)), size
    assert work(place) == expected


@pytest.mark.parametrize("writer", [name for name in WRITERS if name != "graph"])
def test_a_disk_that_is_full_and_grows(writer, tiny_dataset, model, tmp_path, disk):
    work = partial(WRITERS[writer], dataset=tiny_dataset, model=model)
    (tmp_path / "whole").mkdir()
    expected = work(tmp_path / "whole")
    kilobytes, failures = 4, 0
    while fails(work, disk(kilobytes), expected):
        kilobytes, failures = kilobytes + max(4, kilobytes // 8 * 4), failures + 1
    assert failures > 0
