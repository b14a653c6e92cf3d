"""Checkpoints: safetensors with their configuration in the header. Nothing is ever unpickled."""

import hashlib
import json
import zlib
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..config import FusionConfig, ModelConfig
from ..files import atomic_write, mistaken
from .fusionreid import FusionReID, build_model

THEIRS = "fusionreid.load takes any checkpoint, also one of the released code"


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once even where two branches share a module."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def digest(model: FusionReID) -> str:
    """Sixteen hexadecimal digits of a model's configuration and weights, which are taken as float32."""
    content = hashlib.sha256(json.dumps(asdict(model.config)).encode())
    for name, tensor in sorted(tensors(model).items()):
        content.update(name.encode())
        value = tensor.detach().cpu().contiguous()
        content.update((value.float() if value.is_floating_point() else value).numpy())
    return content.hexdigest()[:16]


def save(
    path: str | Path, model: FusionReID, optimizer: torch.optim.Optimizer | None = None, **state
) -> None:
    """Writes the model, the optimizer's tensors and `state`, JSON. An OSError names a `path` that cannot be written."""
    moments = {
        f"optimizer/{index}/{key}": value
        for index, each in (optimizer.state_dict()["state"] if optimizer else {}).items()
        for key, value in each.items()
        if value is not None
    }
    content = {
        f"model/{name}": tensor.detach() for name, tensor in tensors(model).items()
    } | moments
    content = {name: tensor.cpu().contiguous() for name, tensor in content.items()}
    header = {
        "config": asdict(model.config),
        "num_classes": next(iter(model.necks.values())).classifier.out_features,
        "num_cameras": model.num_cameras,
        "optimizer": len(moments) if optimizer else None,
        "state": state,
        "checksums": {name: _checksum(tensor) for name, tensor in content.items()},
    }
    metadata = {key: json.dumps(value) for key, value in header.items()}
    with atomic_write(path) as temporary:
        save_file(content, temporary, metadata=metadata | {"checksum": _header_checksum(metadata)})


def load(path: str | Path, device: str | torch.device = "cpu") -> FusionReID:
    """The model of a checkpoint that `save` wrote, in evaluation mode. Raises as `restore`.

    The model that the header describes has no memory until its shapes are found to be those in the file.
    """
    file, header = _open(path)
    try:
        config = header["config"]
        config["fusion"] = config["fusion"] and FusionConfig(**config["fusion"])
        if config["fusion"] and config["fusion"].depth > len(file.keys()):
            raise ValueError(f"a depth of {config['fusion'].depth} over {len(file.keys())} tensors")
        with torch.device("meta"):
            model = build_model(ModelConfig(**config), header["num_classes"], header["num_cameras"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        found = f"expected a model's configuration in its header, found {error!r}"
        raise ValueError(f"{path}: {found}; {THEIRS}") from error
    _fit(path, file, model)
    restore(path, model.to_empty(device="cpu"))
    return model.to(device).eval()


def read_state(path: str | Path) -> dict:
    """What `save` got besides the model and the optimizer."""
    return _open(path)[1]["state"]


def restore(
    path: str | Path, model: FusionReID, optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Loads into a model, and an optimizer if one is given, of the same shape.

    Raises FileNotFoundError, ValueError, naming the file, and tensors that are missing, unknown, damaged or not finite.
    """
    file, header = _open(path)
    checksums = header.get("checksums", {})  # none in files of before there were any

    def stored(label: str) -> Tensor:
        tensor = file.get_tensor(label)
        if checksums and checksums.get(label) != _checksum(tensor):
            raise ValueError(f"{path}: {label} is damaged: its checksum is another")
        return tensor

    with torch.no_grad():
        for label, tensor in _fit(path, file, model).items():
            if not tensor.copy_(stored(label)).isfinite().all():
                raise ValueError(f"{path}: {label} has numbers that are not finite")
    if optimizer is not None:
        labels = [label for label in file.keys() if label.startswith("optimizer/")]
        expected = header.get("optimizer")
        if len(labels) != expected:  # without them training would continue to other numbers
            raise ValueError(
                f"{path}: expected {expected} tensors of the optimizer, found {len(labels)}"
            )
        state = defaultdict(dict)
        for label in labels:
            _, index, key = label.split("/")
            state[int(index)][key] = stored(label).clone()  # else it would hold the file
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _fit(path: str | Path, file: safe_open, model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors by the names that they have in the file; a ValueError unless names and shapes are equal."""
    wanted = {f"model/{name}": tensor for name, tensor in tensors(model).items()}
    stored = {label for label in file.keys() if label.startswith("model/")}
    wrong = sorted(stored ^ wanted.keys())
    wrong += [
        key
        for key in stored & wanted.keys()
        if file.get_slice(key).get_shape() != list(wanted[key].shape)
    ]
    if wrong:
        raise ValueError(
            f"{path} does not fit the model; missing, unknown or of another shape: {', '.join(wrong[:5])}"
        )
    return wanted


def _checksum(tensor: Tensor) -> int:
    return zlib.crc32(tensor.contiguous().flatten().view(torch.uint8).numpy())


def _header_checksum(metadata: dict[str, str]) -> str:
    return str(zlib.crc32(json.dumps(metadata, sort_keys=True).encode()))


def _open(path: str | Path) -> tuple[safe_open, dict]:
    """A file's tensors, read when asked for, and its header."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        file = safe_open(path, framework="pt")
        metadata = file.metadata() or {}
        if metadata.pop("checksum", None) not in (None, _header_checksum(metadata)):
            raise ValueError("the checksum of its header is another")
        return file, {key: json.loads(text) for key, text in metadata.items()}
    except (SafetensorError, ValueError) as error:
        found = mistaken(path) or f"a damaged or other file ({error}); {THEIRS}"
        raise ValueError(f"{path}: expected a safetensors checkpoint, found {found}") from error
