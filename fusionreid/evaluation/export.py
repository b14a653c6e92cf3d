"""A trained model as a graph for ONNX runtimes: pixels in, retrieval vectors out."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import normalise
from ..files import atomic_write
from ..models.fusionreid import FusionReID
from .embedding import device_of, evaluating


class Embedding(nn.Module):
    """What `embed` computes, as a module: pixels and cameras to L2-normalised vectors (B, D)."""

    def __init__(self, model: FusionReID):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        return F.normalize(self.model.embed(normalise(images), cameras), dim=1)


def export(model: FusionReID, path: str | Path) -> None:
    """Writes a model as an ONNX graph for any batch size, on the CPU.

    Its inputs are `images`, uint8 (B, 3, H, W) RGB of the model's size, and, if the model has a
    camera embedding, `cameras`, int64 (B,), -1 for unseen ones. Its output is `vectors`, float32
    (B, D), as `embed` gives them. Raises ImportError, saying what to install.
    """
    try:
        import onnxscript  # noqa: F401  (torch.onnx needs it, and says so less clearly)
    except ImportError as error:
        raise ImportError(
            f"export to ONNX needs onnxscript: pip install 'fusionreid[export]' ({error})"
        ) from error
    # With a batch of one, the batch would become a constant of the graph.
    inputs = {"images": torch.zeros(2, 3, *model.config.image_size, dtype=torch.uint8)}
    if model.num_cameras:
        inputs["cameras"] = torch.zeros(2, dtype=torch.int64)
    batch = torch.export.Dim("batch")
    shapes = {name: {0: batch} for name in inputs}
    device = device_of(model)
    try:
        with evaluating(model), torch.no_grad():
            module = Embedding(model.cpu()).eval()
            program = torch.export.export(module, (), inputs, dynamic_shapes=shapes)
    finally:
        model.to(device)
    with atomic_write(path) as temporary:
        torch.onnx.export(
            program,
            (),
            temporary,
            input_names=list(inputs),
            output_names=["vectors"],
            external_data=False,
            verbose=False,
        )
