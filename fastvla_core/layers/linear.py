"""One place that makes linear layers, so that a kernel can take their place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvla_core.kernels.activation import Activation, name_of
from fastvla_core.kernels.qkv_rope import Projection
from fastvla_core.kernels.switch import takes_kernel


def linear(in_features: int, out_features: int, *, bias: bool = False) -> nn.Linear:
    """A linear layer of the transformer blocks; bias-free, as the policies people have are."""
    return nn.Linear(in_features, out_features, bias=bias)


def as_projection(layer: nn.Module, x: Tensor) -> Projection | None:
    """The layer's weight and bias where it is nothing but a product in the type of `x`.

    Not so: layers with quantised weights or adapters, layers that somebody listens to, and any
    layer under autocast.
    """
    if type(layer) is not nn.Linear or not _is_alone(layer, x):
        return None
    return Projection(layer.weight, layer.bias)


def activated(layer: nn.Module, x: Tensor, activation: Activation) -> Tensor:
    """activation(layer(x)); in one kernel where the weight is in NF4 and the switch is on."""
    if takes_kernel("nf4_activation", x) and (name := name_of(activation)):
        from fastvla_core.quant import Nf4Linear

        if type(layer) is Nf4Linear and not layer.holds_dense and _is_alone(layer, x):
            return layer.activated(x, name)
    return activation(layer(x))


def _is_alone(layer: nn.Module, x: Tensor) -> bool:
    heard = layer._forward_hooks or layer._forward_pre_hooks  # pyright: ignore[reportPrivateUsage]
    return not heard and not torch.is_autocast_enabled(x.device.type)
