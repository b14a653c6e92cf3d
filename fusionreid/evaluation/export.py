"""A trained model as one graph, for ONNX runtimes and `torch.export`: pixels in, retrieval vectors out."""

import io
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import one_of
from ..data import normalise
from ..files import atomic_write
from ..models.fusionreid import FusionReID
from .embedding import evaluating

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}


class Embedding(nn.Module):
    """What `embed` computes, as a module: uint8 pixels (B, 3, H, W) and cameras (B,) to (B, D), L2-normalised."""

    def __init__(self, model: FusionReID):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        return F.normalize(self.model.embed(normalise(images), cameras), dim=1)


def export(model: FusionReID, path: str | Path, format: str = "onnx") -> None:
    """Writes a model as a graph for any batch size, on the CPU.

    Its inputs are `images`, uint8 (B, 3, H, W) RGB of the model's size, and, if the model has a camera embedding,
    `cameras`, int64 (B,), -1 for unseen ones; its output is `vectors`, float32 (B, D), as `embed` gives them. `format`
    is "onnx", or "torch" for `torch.export.load`.

    Raises ValueError for an unknown format or a suffix of another, ImportError, saying what to install, for ONNX.
    """
    one_of("format", format, FORMATS)
    one_of("a file's suffix", Path(path).suffix.lower(), [FORMATS[format]])
    if format == "onnx":
        try:
            import onnxscript  # noqa: F401  (torch.onnx needs it, and says so less clearly)
        except ImportError as error:
            raise ImportError(
                f"export to ONNX needs onnxscript: pip install 'fusionreid[export]' ({error})"
            ) from error
    size, batch = model.config.image_size, torch.export.Dim("batch")
    inputs = {
        "images": torch.zeros(2, 3, *size, dtype=torch.uint8)
    }  # a batch of one would become a constant
    if model.num_cameras and "transformer" in model.branches:
        inputs["cameras"] = torch.zeros(2, dtype=torch.int64)
    device = next(model.parameters()).device
    try:
        with evaluating(model), torch.no_grad():
            dynamic = {name: {0: batch} for name in inputs}
            program = torch.export.export(
                Embedding(model.cpu()).eval(), (), inputs, dynamic_shapes=dynamic
            )
    finally:
        model.to(device)
    with atomic_write(path) as temporary:
        if format == "torch":
            torch.export.save(
                program, graph := io.BytesIO()
            )  # to a file, a full disk would end the process
            temporary.write_bytes(graph.getvalue())
        else:
            names = {"input_names": list(inputs), "output_names": ["vectors"]}
            torch.onnx.export(program, (), temporary, **names, external_data=False, verbose=False)
