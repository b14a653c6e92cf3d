"""How much memory training takes, derived without a GPU.

    python benchmarks/memory.py        # a minute on two cores

Writes results/memory.csv: weights, gradients, momenta, and what autograd keeps. The storages that a
forward pass in float32 keeps for the backward pass are added up, each once, for two and for four
images on the CPU, and the line through both is followed to a batch of 8 x 16. bf16 keeps between
half of it and all of it, as norms and softmax stay in float32. What cuDNN and the allocator take is
left out.
"""

from __future__ import annotations

import torch
from measure import write_table

from fusionreid import build_model
from fusionreid.config import PAPER_TRAINING, ModelConfig
from fusionreid.paper.experiments import variants
from fusionreid.training.losses import PaperObjective

BATCH = PAPER_TRAINING.identities * PAPER_TRAINING.images
SHOWN = {
    "table1": ("FusionReID", "FusionReID ↑", "FusionReID*", "FusionReID* ↑"),
    "table6": ("ResNet50", "ViT-B/16*", "ResNet152 + ViT-B/16*"),
}


def kept_bytes(model: torch.nn.Module, config: ModelConfig, batch: int) -> int:
    """Bytes that a forward pass and its losses keep for the backward pass, the weights aside."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would hold its own graph, and so never be freed

    images = torch.randn(batch, 3, *config.image_size)
    cameras = torch.zeros(batch, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(images.contiguous(memory_format=torch.channels_last), cameras)
        identities = torch.arange(batch) // 2 + torch.arange(batch) % 2
        loss = sum(PaperObjective(751, PAPER_TRAINING)(output, identities).values())
    assert loss.requires_grad  # holds the graph, and with it the storages, until they are counted
    return sum(kept.values())


def derived(config: ModelConfig) -> tuple[int, int, float]:
    """Bytes in float32: weights, gradients, momenta; what two images keep; what one more keeps."""
    model = build_model(config, 751, 6).to(memory_format=torch.channels_last).train()
    numbers = sum(parameter.numel() for parameter in model.parameters())
    two = kept_bytes(model, config, 2)
    four = kept_bytes(model, config, 4)
    return 3 * 4 * numbers, two, (four - two) / 2


def main() -> None:
    rows = []
    for table, names in SHOWN.items():
        for variant in variants(table):
            if variant.name not in names:
                continue
            fixed, two, image = derived(variant.config)
            total = fixed + two + (BATCH - 2) * image
            rows.append(
                {
                    "model": variant.name,
                    "batch": BATCH,
                    "weights_gradients_momenta_gb": round(fixed / 1e9, 1),
                    "kept_mb_an_image": round(image / 1e6),
                    "float32_gb": round(total / 1e9, 1),
                    "torch": torch.__version__,
                }
            )
    write_table("memory", rows)


if __name__ == "__main__":
    main()
