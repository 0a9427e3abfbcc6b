"""Which operators take their Triton kernels: none, unless the environment names them.

`FASTVLA_KERNELS=rms_norm,gated_mlp` (or `all`) turns kernels on for CUDA tensors. Off is the rule
until a kernel is measured to win. In Triton's interpreter (`TRITON_INTERPRET=1`) the same switch
also serves tensors on the CPU, so that a whole model can be checked without a GPU.
"""

from __future__ import annotations

import os
from functools import cache

import torch
from torch import Tensor

from fastvla_core.errors import KernelInputError

OPERATORS = (
    "rms_norm",
    "qkv_rope",
    "gated_mlp",
    "nf4_activation",
    "nf4_backward",
    "prefix_attention",
    "cross_attention",
    "residual_mlp",
    "flow_step",
)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@cache
def switched_on() -> frozenset[str]:
    """Operators that FASTVLA_KERNELS names; read once per process.

    Raises:
        KernelInputError: It names an operator that does not exist.
    """
    names = frozenset(os.environ.get("FASTVLA_KERNELS", "").replace(",", " ").split())
    if names == {"all"}:
        return frozenset(OPERATORS)
    if unknown := names.difference(OPERATORS):
        raise KernelInputError(
            f"FASTVLA_KERNELS names {', '.join(sorted(unknown))}",
            mend=f"use 'all' or some of {', '.join(OPERATORS)}, separated by commas",
        )
    return names


@cache
def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def takes_kernel(operator: str, x: Tensor) -> bool:
    """Whether `operator` runs its Triton kernel on `x`.

    Never while compiling: Inductor fuses the plain torch of the reference by itself.
    """
    if torch.compiler.is_compiling() or operator not in switched_on():
        return False
    return (x.is_cuda or _interpreted()) and x.dtype in DTYPES


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Whether autograd records an operation on these."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
