"""One place that makes linear layers, so that a kernel can take their place."""

from __future__ import annotations

from torch import nn


def linear(in_features: int, out_features: int, *, bias: bool = False) -> nn.Linear:
    """A linear layer of the transformer blocks; bias-free, as the policies people have are."""
    return nn.Linear(in_features, out_features, bias=bias)
