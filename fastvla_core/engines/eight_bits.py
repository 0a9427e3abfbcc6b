"""Products in 8 bits as ONNX Runtime multiplies them: what stands for linear layers in its graphs.

Activations take the range of their call, in 8 unsigned bits; weights have a scale per output.
Shapes: k inputs, n outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fastvla_core.engines.exported import replaced, unpacked
from fastvla_core.quant import quantizable_layers

# Without VNNI a processor adds two products in 16 bits: 2 * 64 * 255 still fits, 2 * 127 * 255 does
# not, and what does not fit is cut off.
LARGEST_CODE = 64


class EightBitLinear(nn.Module):
    """A linear layer of an exported graph; called outside of an export it returns zeros.

    Buffers: codes_kn int8 in [-64, 64], scale_n float32, with weight[n, k] about codes * scale.
    Source: "DynamicQuantizeMatMul" of ONNX Runtime's contrib operators.
    """

    codes_kn: Tensor
    scale_n: Tensor
    bias: nn.Parameter | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight_nk = linear.weight.detach().float()
        # A row of zeros has codes of zero, whatever its scale.
        scale_n = weight_nk.abs().amax(dim=1).clamp_min(1e-30) / LARGEST_CODE
        codes_nk = torch.round(weight_nk / scale_n[:, None]).to(torch.int8)
        self.register_buffer("codes_kn", codes_nk.T.contiguous())
        self.register_buffer("scale_n", scale_n)
        self.register_parameter("bias", linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., k] to [..., n]."""
        no_zero_points = None
        return torch.onnx.ops.symbolic(
            "com.microsoft::DynamicQuantizeMatMul",
            (x, self.codes_kn, self.scale_n, no_zero_points, self.bias),
            dtype=torch.float32,
            shape=(*x.shape[:-1], len(self.scale_n)),
            version=1,
        )


@contextmanager
def in_eight_bits(model: Any) -> Iterator[None]:
    """Each linear layer that may be quantised stands for a product in 8 bits until the block ends.

    Those that came packed are unpacked first, and packed again: their own codes need all 8 bits.
    """
    with unpacked(model):
        layers = quantizable_layers(model, skip=model.full_precision)
        with replaced(model, {name: EightBitLinear(layer) for name, layer in layers.items()}):
            yield
