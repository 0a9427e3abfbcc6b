"""y = x @ W^T + b with W in NF4, differentiable in x and b; W itself is frozen.

On the CPU: unpack, then multiply (`reference`). On CUDA (`triton`): up to `FUSED_ROWS` rows of x,
one kernel that unpacks in registers; above that, a Triton unpack and the vendor's matrix product.
The gradient of x unpacks again, or, where `FASTVLA_KERNELS` names `nf4_backward`, in registers too.
See README.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastvla_core.errors import KernelInputError
from fastvla_core.kernels.activation import ActivationName
from fastvla_core.kernels.switch import needs_gradient, takes_kernel

from . import reference
from .layout import BLOCK, NESTED_BLOCK, NF4_LEVELS, NestedScales, Nf4Weight

__all__ = [
    "BLOCK",
    "FUSED_ROWS",
    "NESTED_BLOCK",
    "NF4_LEVELS",
    "NestedScales",
    "Nf4Weight",
    "dequantize",
    "nf4_linear",
]

# Below this many rows the product is bound by reading W: the fused kernel reads 0.56 B per weight,
# unpacking first reads 0.56 and then writes and reads 2. From byte counts; not measured.
FUSED_ROWS = 128


def dequantize(weight: Nf4Weight, dtype: torch.dtype) -> Tensor:
    """Unpack an NF4 weight to [N, K] on its own device, bit for bit as bitsandbytes does."""
    if weight.packed.is_cuda:
        from . import triton

        return triton.dequantize(weight, dtype)
    return reference.dequantize(weight, dtype)


def nf4_linear(
    x: Tensor,
    weight: Nf4Weight,
    bias: Tensor | None = None,
    *,
    activation: ActivationName | None = None,
) -> Tensor:
    """Multiply by an NF4 weight, and apply an activation.

    Args:
        x: [..., K], float32, float16 or bfloat16, any strides.
        weight: W of shape (N, K) on the device of `x`.
        bias: [N] or None.
        activation: What the product goes through, if anything.
    Returns:
        [..., N] in the type of `x`. Gradients flow to `x` and `bias`.
    Raises:
        KernelInputError: The last dimension of `x` is not K, or its type is not one of the three.
    Source: QLoRA, arXiv:2305.14314.
    """
    _check(x, weight)
    if needs_gradient(x, bias):
        if torch.compiler.is_compiling():
            # The compiler decides itself whether to unpack again in the backward pass.
            return reference.nf4_linear(x, weight, bias, activation)
        result: Tensor = _Nf4Linear.apply(x, bias, weight)
        return reference.activate(result, activation)
    return _forward(x, weight, bias, activation)


def _check(x: Tensor, weight: Nf4Weight) -> None:
    if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise KernelInputError(
            f"nf4_linear: x is {tuple(x.shape)}, the weight takes {weight.shape[1]} features",
            mend="pass x with the layer's in_features as its last dimension",
        )
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise KernelInputError(
            f"nf4_linear: x is {x.dtype}", mend="convert x to float32, float16 or bfloat16"
        )


def _forward(
    x: Tensor, weight: Nf4Weight, bias: Tensor | None, activation: ActivationName | None = None
) -> Tensor:
    if not x.is_cuda:
        return reference.nf4_linear(x, weight, bias, activation)
    from . import triton

    if x.numel() <= FUSED_ROWS * x.shape[-1]:
        return triton.nf4_linear(x, weight, bias, activation=activation)
    product = reference.dense_linear(x, triton.dequantize(weight, x.dtype), bias)
    return reference.activate(product, activation)


def _input_gradient(grad: Tensor, weight: Nf4Weight) -> Tensor:
    if takes_kernel("nf4_backward", grad):
        from . import triton

        return triton.input_gradient(grad, weight)
    dense_nk = dequantize(weight, reference.compute_dtype(grad))
    return (grad.to(dense_nk.dtype) @ dense_nk).to(grad.dtype)


class _Nf4Linear(torch.autograd.Function):
    """Keeps the packed weight for the backward pass instead of the unpacked one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, weight: Nf4Weight) -> Tensor:
        ctx.weight = weight
        ctx.bias_dtype = None if bias is None else bias.dtype
        return _forward(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        grad_x = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _input_gradient(grad, ctx.weight)
        if ctx.needs_input_grad[1]:
            rows = grad.reshape(-1, grad.shape[-1])
            grad_bias = rows.sum(0, dtype=torch.float32).to(ctx.bias_dtype)
        return grad_x, grad_bias, None
