"""Batch norm over the patches of all ranks on CPUs, for which torch has none; GPUs have its own by Lightning's flag."""

import torch
from pytorch_lightning.plugins.layer_sync import LayerSync
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_dice.ranks import total


class CPUSyncBatchNorm(LayerSync):
    """Has a module's batch norms count all ranks' voxels while it trains."""

    def apply(self, model: nn.Module) -> nn.Module:
        for layer in model.modules():
            if isinstance(layer, _BatchNorm):
                layer.alone, layer.__class__ = type(layer), _Synchronised  # type: ignore[assignment]  # layers take any
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        for layer in model.modules():
            if isinstance(layer, _Synchronised):
                layer.__class__ = layer.__dict__.pop("alone")
        return model


class _Synchronised(_BatchNorm):
    """With mean and variance over all ranks, each of which has as many voxels."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Nothing: it is what it was before."""

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return super().forward(values)
        dims = [0, *range(2, values.dim())]
        shape = [1, -1, *[1] * (values.dim() - 2)]
        count = total(values.new_tensor(values.numel() // values.shape[1]))
        mean = total(values.sum(dims)) / count
        centred = values - mean.view(shape)
        variance = total(centred.square().sum(dims)) / count
        if self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            share = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.item()
            with torch.no_grad():
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * count / (count - 1), share)
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        return normal * self.weight.view(shape) + self.bias.view(shape) if self.affine else normal
