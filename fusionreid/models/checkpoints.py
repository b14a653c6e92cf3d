"""Checkpoints: safetensors with the model's configuration in the header. Nothing is unpickled.

A file holds the tensors `model/<name>` and, of a run that may go on, `optimizer/<index>/<name>`.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..config import FusionConfig, ModelConfig
from ..files import atomic_write, mistaken
from .fusionreid import FusionReID, build_model

HINT = "fusionreid.load takes any checkpoint, also one of the released code"


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name. A module that the branches share is named once."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def digest(model: FusionReID) -> str:
    """Sixteen hexadecimal digits of a model's configuration and weights (taken as float32)."""
    content = hashlib.sha256(json.dumps(asdict(model.config)).encode())
    for name, tensor in sorted(tensors(model).items()):
        value = tensor.detach().cpu().contiguous()
        if value.is_floating_point():
            value = value.float()
        content.update(name.encode())
        content.update(value.numpy())
    return content.hexdigest()[:16]


def fill(source: str | Path, stored: Mapping[str, Tensor], places: Mapping[str, Tensor]) -> None:
    """Copies what is stored to a model's places, which are its tensors by name.

    Raises ValueError unless exactly these tensors are stored, and are finite. It names the source
    and the tensors: missing, of another shape, not finite, or unknown.
    """
    problems = dict.fromkeys(stored.keys() - places.keys(), "unknown")
    for name, place in places.items():
        if name not in stored:
            problems[name] = "missing"
        elif stored[name].shape != place.shape:
            problems[name] = (
                f"of another shape: expected {tuple(place.shape)}, found "
                f"{tuple(stored[name].shape)}"
            )
        elif not stored[name].isfinite().all():
            problems[name] = "not finite"
    if problems:
        first = [f"{name} is {problem}" for name, problem in sorted(problems.items())[:20]]
        raise ValueError(
            f"{source}: does not fit the model, or is damaged in {len(problems)} of its tensors: "
            f"{'; '.join(first)}"
        )
    with torch.no_grad():
        for name, place in places.items():
            place.copy_(stored[name])


def save(
    path: str | Path, model: FusionReID, optimizer: torch.optim.Optimizer | None = None, **state
) -> None:
    """Writes the model, the optimizer's tensors, and `state`, which becomes JSON.

    Raises OSError, naming `path`, if it cannot be written.
    """
    content = {f"model/{name}": tensor.detach() for name, tensor in tensors(model).items()}
    if optimizer is not None:
        for index, moments in optimizer.state_dict()["state"].items():
            for key, moment in moments.items():
                if moment is not None:  # SGD without momentum keeps nothing
                    content[f"optimizer/{index}/{key}"] = moment
    header = {
        "config": asdict(model.config),
        "num_classes": model.num_classes,
        "num_cameras": model.num_cameras,
        "state": state,
    }
    with atomic_write(path) as temporary:
        save_file(
            {name: tensor.cpu().contiguous() for name, tensor in content.items()},
            temporary,
            metadata={key: json.dumps(value) for key, value in header.items()},
        )


def load(path: str | Path, device: str | torch.device = "cpu") -> FusionReID:
    """The model of a checkpoint that `save` wrote, in evaluation mode. Raises as `restore`."""
    _, header = _open(path)
    try:
        config = header["config"]
        if config["fusion"] is not None:
            config["fusion"] = FusionConfig(**config["fusion"])
        with torch.device("meta"):  # random weights would only be overwritten
            model = build_model(ModelConfig(**config), header["num_classes"], header["num_cameras"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected a model's configuration in its header, found {error!r}; {HINT}"
        ) from error
    model.to_empty(device="cpu")
    restore(path, model)
    return model.to(device).eval()


def read_state(path: str | Path) -> dict:
    """The `state` that `save` was given."""
    _, header = _open(path)
    return header["state"]


def restore(
    path: str | Path, model: FusionReID, optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Loads a checkpoint into a model, and an optimizer if one is given, of the same shape.

    Raises FileNotFoundError, or ValueError as `fill`.
    """
    file, _ = _open(path)
    places = {f"model/{name}": tensor for name, tensor in tensors(model).items()}
    stored = {name: file.get_tensor(name) for name in file.keys() if name.startswith("model/")}
    fill(path, stored, places)
    if optimizer is not None:
        moments = defaultdict(dict)
        for name in file.keys():
            if name.startswith("optimizer/"):
                _, index, key = name.split("/")
                # A copy: the tensor itself is a part of the file, which could then not be removed.
                moments[int(index)][key] = file.get_tensor(name).clone()
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def _open(path: str | Path) -> tuple[safe_open, dict]:
    """A file, whose tensors are read when they are asked for, and its header."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        file = safe_open(path, framework="pt")
        header = {key: json.loads(text) for key, text in (file.metadata() or {}).items()}
    except (SafetensorError, ValueError) as error:
        content = mistaken(path) or f"a damaged or other file ({error}); {HINT}"
        raise ValueError(f"{path}: expected a safetensors checkpoint, found {content}") from error
    return file, header
