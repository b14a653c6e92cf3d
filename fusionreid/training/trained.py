"""Trained models by name: the one that comes with the package, a run's, or a checkpoint's; and a run made one file."""

import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from .. import paths
from ..devices import default_device
from ..files import read_json
from ..models import checkpoints, released
from ..models.checkpoints import digest
from ..models.fusionreid import FusionReID
from .runs import read_result


def load(source: str | Path, device: str | torch.device | None = None) -> FusionReID:
    """A trained model in evaluation mode, ready to embed, by default on the GPU, if there is one.

    `source` is "demo", which comes with the package; a run, "runs/<fingerprint>" or its fingerprint alone; or a file,
    one of this package's checkpoints or of the authors' released code. Raises FileNotFoundError, saying what was looked
    for and what there is, or ValueError, naming the file, which is damaged or holds something else.
    """
    path = find(source)
    if path.is_dir():
        if not (path / "result.json").is_file():
            warnings.warn(
                f"{path}: the run is not finished; its last epoch until now is loaded", stacklevel=2
            )
        path = path / "checkpoint.safetensors"
    if _is_released(path):
        return released.load(path).to(device or default_device())
    model, expected = checkpoints.load(path), checkpoints.read_state(path).get("digest")
    if expected and (found := digest(model)) != expected:
        raise ValueError(
            f"{path}: expected weights of digest {expected}, found {found}; fetch the file again"
        )
    return model.to(device or default_device())


def find(source: str | Path) -> Path:
    """The file or the run's folder that `load` means by `source`; a FileNotFoundError says what there is."""
    ours, run = paths.WEIGHTS / f"{source}.safetensors", paths.RUNS / Path(source).name
    candidates = [ours, Path(source), paths.ROOT / source, run]
    for path in candidates:
        if path.is_file() or (path / "checkpoint.safetensors").is_file():
            return path
    if folder := next((path for path in candidates[1:] if path.is_dir()), None):
        raise FileNotFoundError(
            f"{folder}: expected a run with a checkpoint.safetensors, found none; train it first"
        )
    runs = len(list(paths.RUNS.glob("*/checkpoint.safetensors")))
    expected = "expected 'demo', a run (runs/<fingerprint>) or a checkpoint's file, found none of that name"
    raise FileNotFoundError(
        f"model {str(source)!r}: {expected}; {paths.RUNS} has {runs} runs with a checkpoint"
    )


def publish(source: str | Path, path: str | Path) -> dict:
    """Writes a finished run as one small file: weights in float16, and where they come from in the header.

    Returns the header: "run" (the run's configuration), "result" (with commit, data and seed) and "digest". Raises
    FileNotFoundError or ValueError if the run is not there, not finished, or its weights do not fit into float16.
    """
    folder = find(source)
    result = read_result(folder.name, folder.parent) if folder.is_dir() else None
    if result is None:
        found = "expected the folder of a finished run, found no result.json; train it first"
        raise FileNotFoundError(f"{folder}: {found}")
    model = checkpoints.load(folder / "checkpoint.safetensors").half()
    if large := [
        name for name, tensor in checkpoints.tensors(model).items() if not tensor.isfinite().all()
    ]:
        raise ValueError(f"{folder}: numbers too large for float16 in {', '.join(large[:5])}")
    header = {"run": read_json(folder / "config.json"), "result": result, "digest": digest(model)}
    checkpoints.save(path, model, **header)
    return header


def _is_released(path: Path) -> bool:
    """Whether a file is the released code's: not safetensors, or without a configuration in its header."""
    try:
        with safe_open(path, framework="pt") as file:
            return "config" not in (file.metadata() or {})
    except SafetensorError:  # whoever reads it will name it
        return True
