"""The parameters of a block."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A layer norm and the linear layer behind it.

    Attributes:
        norm_weight, norm_bias: [k].
        weight, bias: [n, k] and [n].
        eps: Added to the variance.
    """

    norm_weight: Tensor
    norm_bias: Tensor
    weight: Tensor
    bias: Tensor
    eps: float

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All parameters."""
        return self.norm_weight, self.norm_bias, self.weight, self.bias
