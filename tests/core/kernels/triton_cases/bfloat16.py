"""Triton's interpreter with bfloat16 as a GPU computes it.

The interpreter keeps bfloat16 as 16-bit integers: it multiplies their raw bits (`tl.dot`), cuts
float32 to them instead of rounding, and converts other types to them as integers. Here products and
conversions see values, and conversions round to the nearest, ties to even, as `cvt.rn.bf16` does.
Arithmetic between two bfloat16 values is refused: no kernel of ours has any, they compute in
float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray


def values(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 values that bfloat16 `bits` stand for."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded_bits(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16 values."""
    nearest = torch.from_numpy(np.array(array, np.float32)).bfloat16()
    return nearest.view(torch.int16).numpy().view(np.uint16)


def teach_the_interpreter() -> None:
    """Change `triton.runtime.interpreter` for this process."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder as Builder
    from triton.runtime.interpreter import TensorHandle

    plain_dot, plain_cast = Builder.create_dot, Builder.cast_impl
    plain_binary, plain_unary = Builder.binary_op, Builder.unary_op

    def is_bf16(handle: Any) -> bool:
        return handle.dtype.scalar == tl.bfloat16

    def widened(handle: Any) -> Any:
        return TensorHandle(values(handle.data), tl.float32) if is_bf16(handle) else handle

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return plain_dot(self, widened(a), widened(b), *rest)

    def cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
        if dst_type.scalar != tl.bfloat16:
            return plain_cast(self, widened(src), dst_type)
        if is_bf16(src):
            return src
        return TensorHandle(rounded_bits(src.data), tl.bfloat16)

    def binary_op(self: Any, lhs: Any, rhs: Any, op: Any) -> Any:
        if is_bf16(lhs):
            raise NotImplementedError(f"{op.__name__} of two bfloat16 values")
        return plain_binary(self, lhs, rhs, op)

    def unary_op(self: Any, arg: Any, op: Any) -> Any:
        if is_bf16(arg):
            raise NotImplementedError(f"{op.__name__} of a bfloat16 value")
        return plain_unary(self, arg, op)

    Builder.create_dot, Builder.cast_impl = create_dot, cast_impl
    Builder.binary_op, Builder.unary_op = binary_op, unary_op
