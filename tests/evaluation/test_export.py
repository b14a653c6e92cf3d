"""A graph of the model computes what `embed` does, for every size of batch."""

import builtins

import numpy as np
import pytest
import torch

from fusionreid import build_model, embed
from fusionreid.config import PAPER, profile
from fusionreid.evaluation.export import Embedding, export

MODEL = profile("smoke").scale(PAPER)
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 3, *MODEL.image_size), dtype=np.uint8)
CAMERAS = np.array([0, -1, 5, 2, 3])


@pytest.fixture(scope="module", params=[6, 0], ids=["cameras", "no cameras"])
def model(request):
    torch.manual_seed(0)
    model = build_model(MODEL, 4, request.param)
    with torch.no_grad():
        for (
            name,
            buffer,
        ) in model.named_buffers():  # as after training: running statistics that matter
            buffer.add_(0.1) if name.endswith("running_mean") else None
    return model


def inputs(model, count):
    return {"images": PIXELS[:count]} | ({"cameras": CAMERAS[:count]} if model.num_cameras else {})


def expected(model, count):
    return embed(model, PIXELS[:count], CAMERAS[:count] if model.num_cameras else None)


def test_the_module_computes_what_embed_does(model):
    module = Embedding(model).eval()
    tensors = {name: torch.from_numpy(value) for name, value in inputs(model, 5).items()}
    with torch.no_grad():
        vectors = module(**tensors)
    np.testing.assert_allclose(vectors, expected(model, 5), atol=1e-5)
    model.train()


def test_onnx(model, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    export(model, tmp_path / "model.onnx")
    assert model.training, "the model is as it was"
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_outputs()] == ["vectors"]
    for count in (1, 2, 5):
        (found,) = session.run(None, inputs(model, count))
        np.testing.assert_allclose(found, expected(model, count), atol=1e-4)


def test_a_missing_package_is_named(model, tmp_path, monkeypatch):
    real = builtins.__import__

    def absent(name, *arguments):
        if name == "onnxscript":
            raise ImportError("No module named 'onnxscript'")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=r"pip install 'fusionreid\[export\]'"):
        export(model, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
