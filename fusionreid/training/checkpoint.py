"""Checkpoints: safetensors with their configuration inside. Nothing is ever unpickled."""

from __future__ import annotations

import errno
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..config import FusionConfig, ModelConfig
from ..files import atomic_write
from ..models.fusionreid import FusionReID, build_model


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once even where two branches share a module."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def fingerprint(model: FusionReID) -> str:
    """Twelve hexadecimal digits of a model's configuration and weights."""
    digest = hashlib.sha256(json.dumps(asdict(model.config)).encode())
    for name, tensor in tensors(model).items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()[:12]


def save(path: str | Path, model: FusionReID, optimizer: torch.optim.Optimizer | None = None, **state) -> None:
    """Writes the model, the optimizer's state and a little JSON state, aside and then renamed."""
    content = {f"model/{name}": tensor.detach().contiguous() for name, tensor in tensors(model).items()}
    if optimizer is not None:
        for name, parameter in model.named_parameters():
            for key, value in optimizer.state.get(parameter, {}).items():
                if value is not None:
                    content[f"optimizer/{key}/{name}"] = value.contiguous()
    neck = next(iter(model.necks.values()))
    metadata = {
        "config": json.dumps(asdict(model.config)),
        "num_classes": str(neck.classifier.out_features),
        "num_cameras": str(model.num_cameras),
        "state": json.dumps(state),
    }
    write_tensors(content, path, metadata)


def write_tensors(tensors: dict[str, torch.Tensor], path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Safetensors, written aside and then renamed.

    Raises:
        OSError: naming `path`, when it cannot be written (read-only, full).
    """
    with atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:  # its own kind, whatever the system said
            raise OSError(errno.EIO, str(error)) from error


def _open(path: str | Path):
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(
            f"{path}: expected a safetensors checkpoint, found a damaged or other file ({error}); one of the released "
            "code is loaded by fusionreid.released.load, or evaluate --released"
        ) from error


def restore(path: str | Path, model: FusionReID, optimizer: torch.optim.Optimizer | None = None) -> dict:
    """Loads into an existing model (and optimizer) of the same shape; returns the JSON state.

    Raises:
        ValueError: naming the file and the first tensors that are missing, unknown or of another shape.
    """
    with _open(path) as file:
        stored = {key for key in file.keys() if key.startswith("model/")}
        wanted = {f"model/{name}": tensor for name, tensor in tensors(model).items()}
        wrong = sorted(stored ^ set(wanted))
        wrong += [key for key in stored & set(wanted) if file.get_slice(key).get_shape() != list(wanted[key].shape)]
        if wrong:
            raise ValueError(
                f"{path} does not fit the model; missing, unknown or of another shape: {', '.join(wrong[:5])}"
                f"{' ...' if len(wrong) > 5 else ''}"
            )
        with torch.no_grad():
            for key, tensor in wanted.items():
                tensor.copy_(file.get_tensor(key))
        if optimizer is not None:
            parameters = dict(model.named_parameters())
            for label in file.keys():
                if label.startswith("optimizer/"):
                    _, key, name = label.split("/", 2)
                    value, parameter = file.get_tensor(label), parameters[name]
                    # A count of steps stays on the CPU, where the optimizers keep it.
                    optimizer.state[parameter][key] = value.to(parameter.device) if value.ndim else value
        return json.loads((file.metadata() or {}).get("state", "{}"))


def load(path: str | Path, device: str | torch.device = "cpu") -> FusionReID:
    """The model of a checkpoint that `save` wrote, in evaluation mode; its configuration is in the file."""
    with _open(path) as file:
        metadata = file.metadata() or {}
    if "config" not in metadata:
        raise ValueError(
            f"{path}: holds no configuration; for a checkpoint of the released code use fusionreid.released.load"
        )
    config = json.loads(metadata["config"])
    config["fusion"] = config["fusion"] and FusionConfig(**config["fusion"])
    model = build_model(ModelConfig(**config), int(metadata["num_classes"]), int(metadata["num_cameras"])).to(device)
    restore(path, model)
    return model.eval()
