"""The two quantised layers: NF4 (4.5 bits per weight) and 8-bit with one scale per output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from fastvla_core.errors import QuantError
from fastvla_core.kernels import nf4_linear as kernel
from fastvla_core.kernels.activation import ActivationName
from fastvla_core.kernels.nf4_linear.reference import compute_dtype, dense_linear

from . import int8, nf4
from .base import QuantizedLinear
from .int8 import Int8Weight
from .nf4 import NestedScales, Nf4Weight

_NF4_KEYS = frozenset(
    {
        "weight",
        "weight.absmax",
        "weight.quant_map",
        "weight.nested_absmax",
        "weight.nested_quant_map",
        f"weight.{nf4.STATE_KEY}",
    }
)


class Nf4Linear(QuantizedLinear):
    """A linear layer stored as bitsandbytes' Linear4bit: `weight`, `weight.absmax` and so on.

    Buffers: packed, absmax and, with nested scales, nested_code, nested_absmax, nested_offset.
    """

    state_keys: ClassVar[frozenset[str]] = _NF4_KEYS
    packed: Tensor
    absmax: Tensor
    nested_code: Tensor | None
    nested_absmax: Tensor | None
    nested_offset: Tensor | None

    def __init__(self, weight: Nf4Weight, *, bias: nn.Parameter | None = None) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=bias)
        for name in ("packed", "absmax", "nested_code", "nested_absmax", "nested_offset"):
            self.register_buffer(name, None)
        self._take(weight)

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, nested: bool = False) -> Nf4Linear:
        """Quantise a layer; its bias is shared, not copied. Raises QuantError."""
        return cls(nf4.quantize(linear.weight, nested=nested), bias=linear.bias).train(
            linear.training
        )

    @classmethod
    def blank(cls, linear: nn.Linear) -> Nf4Linear:
        """Return a layer of the same shape for a stored weight to be loaded into."""
        rows, columns = linear.weight.shape
        count, device = rows * columns, linear.weight.device
        weight = Nf4Weight(
            packed=torch.zeros((count + 1) // 2, 1, dtype=torch.uint8, device=device),
            absmax=torch.zeros(-(-count // nf4.BLOCK), device=device),
            shape=(rows, columns),
            dtype=linear.weight.dtype,
        )
        return cls(weight, bias=linear.bias).train(linear.training)

    @property
    def packed_weight(self) -> Nf4Weight:
        """The weight as one value; shares memory with the buffers."""
        nested = None
        if self.nested_code is not None:
            assert self.nested_absmax is not None
            assert self.nested_offset is not None
            nested = NestedScales(
                code=self.nested_code,
                absmax=self.nested_absmax,
                offset=self.nested_offset,
                block=self._nested_block,
            )
        return Nf4Weight(
            packed=self.packed,
            absmax=self.absmax,
            shape=(self.out_features, self.in_features),
            block=self._block,
            dtype=self._dtype,
            nested=nested,
        )

    def dense(self, dtype: torch.dtype) -> Tensor:
        """Return the unpacked weight [N, K]."""
        return kernel.dequantize(self.packed_weight, dtype)

    def multiply(self, x: Tensor) -> Tensor:
        """Multiply by the packed weight; on CUDA by the fused kernel."""
        return kernel.nf4_linear(x, self.packed_weight, self.bias)

    def activated(self, x: Tensor, activation: ActivationName) -> Tensor:
        """What an activation makes of the layer's output; on CUDA in the fused kernel."""
        return kernel.nf4_linear(x, self.packed_weight, self.bias, activation=activation)

    def weight_state(self) -> dict[str, Tensor]:
        """Return the tensors that bitsandbytes' Linear4bit stores."""
        state = nf4.to_state(self.packed_weight)
        return {f"weight.{key}" if key else "weight": value for key, value in state.items()}

    def load_weight_state(
        self, state: Mapping[str, Tensor], *, device: torch.device | None
    ) -> None:
        """Take a weight that bitsandbytes or `weight_state` stored. Raises QuantError."""
        parts = {k.removeprefix("weight").removeprefix("."): v for k, v in state.items()}
        if device is not None:
            parts = {key: value.to(device) for key, value in parts.items()}
        weight = nf4.from_state(parts)
        _check_shape(weight.shape, self)
        self._take(weight)

    def _take(self, weight: Nf4Weight) -> None:
        nested = weight.nested
        self.packed, self.absmax = weight.packed, weight.absmax
        self.nested_code = None if nested is None else nested.code
        self.nested_absmax = None if nested is None else nested.absmax
        self.nested_offset = None if nested is None else nested.offset
        self._nested_block = nf4.NESTED_BLOCK if nested is None else nested.block
        self._block, self._dtype = weight.block, weight.dtype


class Int8Linear(QuantizedLinear):
    """A linear layer stored as bitsandbytes' Linear8bitLt: `weight`, `SCB`, `weight_format`.

    Buffers: codes int8 [N, K], absmax float32 [N].
    """

    state_keys: ClassVar[frozenset[str]] = frozenset({"weight", "SCB", "weight_format"})
    codes: Tensor
    absmax: Tensor

    def __init__(self, weight: Int8Weight, *, bias: nn.Parameter | None = None) -> None:
        super().__init__(weight.codes.shape[1], weight.codes.shape[0], bias=bias)
        self.register_buffer("codes", weight.codes)
        self.register_buffer("absmax", weight.absmax)

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> Int8Linear:
        """Quantise a layer; its bias is shared, not copied. Raises QuantError."""
        return cls(int8.quantize(linear.weight), bias=linear.bias).train(linear.training)

    @classmethod
    def blank(cls, linear: nn.Linear) -> Int8Linear:
        """Return a layer of the same shape for a stored weight to be loaded into."""
        device = linear.weight.device
        weight = Int8Weight(
            codes=torch.zeros(linear.weight.shape, dtype=torch.int8, device=device),
            absmax=torch.zeros(linear.weight.shape[0], device=device),
        )
        return cls(weight, bias=linear.bias).train(linear.training)

    def dense(self, dtype: torch.dtype) -> Tensor:
        """Return the unpacked weight [N, K]."""
        return int8.dequantize(Int8Weight(codes=self.codes, absmax=self.absmax), dtype)

    def multiply(self, x: Tensor) -> Tensor:
        """Unpack, then multiply; the backward pass unpacks again instead of keeping the result."""
        if torch.is_grad_enabled() and x.requires_grad and not torch.compiler.is_compiling():
            product: Tensor = _FrozenMatmul.apply(x, self)
            return product if self.bias is None else product + self.bias.to(product.dtype)
        return dense_linear(x, self.dense(compute_dtype(x)), self.bias)

    def weight_state(self) -> dict[str, Tensor]:
        """Return the tensors that bitsandbytes' Linear8bitLt stores; format 0 is row-major."""
        return {
            "weight": self.codes,
            "SCB": self.absmax,
            "weight_format": torch.tensor(0, dtype=torch.uint8),
        }

    def load_weight_state(
        self, state: Mapping[str, Tensor], *, device: torch.device | None
    ) -> None:
        """Take a weight that bitsandbytes or `weight_state` stored. Raises QuantError."""
        codes, absmax = state["weight"], state.get("SCB")
        if codes.dtype != torch.int8 or codes.ndim != 2 or absmax is None:
            raise QuantError(
                f"not an 8-bit weight: {codes.dtype} {tuple(codes.shape)}, "
                f"SCB {'given' if absmax is not None else 'missing'}",
                mend="an 8-bit layer needs an int8 weight [N, K] and its SCB",
            )
        if int(state.get("weight_format", 0)):
            raise QuantError(
                "the stored weight is not row-major", mend="save it with bitsandbytes 0.45 or newer"
            )
        _check_shape((codes.shape[0], codes.shape[1]), self)
        _check_scales(absmax, self)
        self.codes = codes if device is None else codes.to(device)
        self.absmax = absmax.float() if device is None else absmax.to(device, torch.float32)


class _FrozenMatmul(torch.autograd.Function):
    """x @ W^T that unpacks W again in the backward pass."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, layer: Int8Linear) -> Tensor:
        ctx.layer = layer  # pyright: ignore[reportAttributeAccessIssue]
        return dense_linear(x, layer.dense(compute_dtype(x)), None)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        layer: Int8Linear = ctx.layer  # pyright: ignore[reportAttributeAccessIssue]
        dense_nk = layer.dense(compute_dtype(grad))
        return (grad.to(dense_nk.dtype) @ dense_nk).to(grad.dtype), None


def _check_shape(shape: tuple[int, int], layer: QuantizedLinear) -> None:
    expected = (layer.out_features, layer.in_features)
    if shape != expected:
        raise QuantError(
            f"the stored weight is {shape}, the layer {expected}",
            mend="the checkpoint belongs to another model configuration",
        )


def _check_scales(absmax: Tensor, layer: Int8Linear) -> None:
    if absmax.numel() != layer.out_features:
        raise QuantError(
            f"{absmax.numel()} scales for {layer.out_features} outputs",
            mend="save the checkpoint again",
        )
