"""Trained models by name: the one of the package, a run's, or a file's; and a run as one file."""

import warnings
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .. import paths
from ..devices import default_device
from ..evaluation.verification import CAMERAS, Calibration
from ..files import read_json, write_json
from ..models import checkpoints, released
from ..models.fusionreid import FusionReID
from .runs import RunConfig, Start, read_result


def load(source: str | Path, device: str | torch.device | None = None) -> FusionReID:
    """A trained model in evaluation mode, ready to embed.

    Args:
        source: "demo", which comes with the package; a run, "runs/<fingerprint>" or its
            fingerprint alone; or a file: a checkpoint of this package or of the released code.
        device: default: the GPU, if there is one.

    Raises:
        FileNotFoundError: there is no such model; the message says what there is.
        ValueError: the file, which is named, is damaged or holds something else.
    """
    path = find(source)
    if path.is_dir() and not (path / "result.json").is_file():
        warnings.warn(
            f"{path}: the run is not finished; its last saved epoch is loaded", stacklevel=2
        )
    path = _checkpoint(path)
    if _is_released(path):
        model = released.load(path)
    else:
        model = checkpoints.load(path)
        digest = checkpoints.digest(model)
        expected = checkpoints.read_state(path).get("digest", digest)
        if digest != expected:
            raise ValueError(
                f"{path}: expected weights of digest {expected}, found {digest}; "
                "fetch the file again"
            )
    return model.to(device or default_device())


def find(source: str | Path) -> Path:
    """The file or the run's folder that `load` means by `source`.

    Raises FileNotFoundError, saying what there is.
    """
    packaged = paths.WEIGHTS / f"{source}.safetensors"
    for path in (packaged, Path(source), paths.ROOT / source, paths.RUNS / Path(source).name):
        if _checkpoint(path).is_file():
            return path
    runs = list(paths.RUNS.glob("*/checkpoint.safetensors"))
    raise FileNotFoundError(
        f"model {str(source)!r}: expected 'demo', a run with a checkpoint (runs/<fingerprint>), or "
        f"a checkpoint's file, found no such; {paths.RUNS} has {len(runs)} runs with a checkpoint"
    )


def write_calibrations(
    source: str | Path, model: FusionReID, data: str, calibrations: dict[bool, Calibration]
) -> Path:
    """Keeps the calibrations of a model beside its checkpoint, and returns the file.

    Args:
        source: where `model` was loaded from.
        data: on whose people they were made.
        calibrations: by whether the camera embedding is used, True and False.
    """
    file = _calibration_file(source)
    content = {"digest": checkpoints.digest(model), "data": data}
    for use, calibration in calibrations.items():
        content[CAMERAS[use]] = calibration._asdict()
    write_json(file, content)
    return file


def read_calibrations(source: str | Path, model: FusionReID) -> dict[bool, Calibration]:
    """The calibrations kept beside the checkpoint of `model`, by whether cameras are used.

    {} if there is no file. Raises ValueError, naming the file, if it is of another model, or
    damaged.
    """
    file = _calibration_file(source)
    if not file.is_file():
        return {}
    content = read_json(file)
    try:
        made_for = content["digest"]
        calibrations = {use: Calibration(**content[name]) for use, name in CAMERAS.items()}
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: expected a calibration, found something else ({error!r})"
        ) from error
    digest = checkpoints.digest(model)
    if made_for != digest:
        raise ValueError(
            f"{file}: expected the calibration of a model of digest {digest}, found one of "
            f"{made_for}; make it again: fusionreid verify {source} --calibrate"
        )
    return calibrations


def _calibration_file(source: str | Path) -> Path:
    return _checkpoint(find(source)).with_suffix(".calibration.json")


def _checkpoint(path: Path) -> Path:
    """The file of weights of what `find` gives."""
    return path / "checkpoint.safetensors" if path.is_dir() else path


def publish(source: str | Path, path: str | Path) -> dict:
    """Writes a finished run as one small file: weights in float16, and their origin in the header.

    Returns the header: "run" (the run's configuration), "result" (with commit, data and seed) and
    "digest".

    Raises:
        FileNotFoundError: the run is not there or not finished.
        ValueError: a weight is too large for float16.
    """
    folder = find(source)
    result = read_result(folder.name, folder.parent) if folder.is_dir() else None
    if result is None:
        raise FileNotFoundError(
            f"{folder}: expected the folder of a finished run, found no result.json; train it first"
        )
    model = checkpoints.load(folder / "checkpoint.safetensors").half()
    for name, tensor in checkpoints.tensors(model).items():
        if not tensor.isfinite().all():
            raise ValueError(f"{folder}: numbers too large for float16 in {name}")
    header = {
        "run": read_json(folder / "config.json"),
        "result": result,
        "digest": checkpoints.digest(model),
    }
    checkpoints.save(path, model, **header)
    return header


def fine_tuned(run: RunConfig, source: str | Path) -> RunConfig:
    """The run with a trained model to start from: its configuration and its weights.

    `source` is as of `load`, and raises as there.
    """
    file = _checkpoint(find(source))
    model = load(source, "cpu").config
    start = Start(str(file), whole=True)
    return replace(
        run,
        model=model,
        cnn_start=start if model.cnn else Start(),
        transformer_start=start if model.transformer else Start(),
    )


def take_weights(model: FusionReID, source: str | Path) -> str:
    """Copies a trained model's weights, in place, and says what was taken.

    The classifiers and the camera embedding stay as they are: they are of other people and cameras.
    Raises ValueError as `checkpoints.fill`.
    """

    def lasting(of: FusionReID) -> dict[str, Tensor]:
        return {
            name: tensor
            for name, tensor in checkpoints.tensors(of).items()
            if not name.endswith(("classifier.weight", "camera_embedding"))
        }

    places = lasting(model)
    checkpoints.fill(source, lasting(load(source, "cpu")), places)
    return (
        f"{source}: {len(places)} tensors taken; new: {len(model.necks)} classifiers of "
        f"{model.num_classes} people, camera embedding of {model.num_cameras} cameras"
    )


def _is_released(path: Path) -> bool:
    """Whether a file is of the released code: no safetensors, or no configuration in its header."""
    try:
        with safe_open(path, framework="pt") as file:
            return "config" not in (file.metadata() or {})
    except SafetensorError:  # the reader of such files names what is wrong with it
        return True
