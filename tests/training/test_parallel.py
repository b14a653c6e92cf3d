"""Several processes as one; that they compute what one computes is in test_train."""

import torch
from timm.layers import BatchNormAct2d

from fusionreid.training import parallel


def test_batch_norms_over_all_processes_keep_their_activations():
    """timm's BatchNormAct2d applies its activation itself, which torch's own conversion would lose."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), BatchNormAct2d(4), torch.nn.BatchNorm2d(4)).eval()
    images, parameters = torch.randn(2, 3, 5, 5), dict(model.named_parameters())
    expected = model(images)
    converted = parallel.convert_sync_batchnorm(model)
    assert sum(isinstance(module, torch.nn.SyncBatchNorm) for module in converted.modules()) == 2
    assert torch.equal(converted(images), expected)
    assert all(parameters[name] is parameter for name, parameter in converted.named_parameters())
