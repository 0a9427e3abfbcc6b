"""Every kernel in the variants that policies use, as Triton's compiler takes them without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One kernel to compile.

    Attributes:
        name: For reports.
        types: Type of each argument that is no constant, as Triton writes it.
        constants: Value of each argument that is one.
        options: Warps and stages.
    """

    name: str
    kernel: Any
    types: dict[str, str]
    constants: dict[str, Any]
    options: dict[str, int] = field(default_factory=dict)


def compile_variant(variant: Variant, capability: int) -> Any:
    """Compile for one compute capability; the result has `asm` and `metadata`."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    names = variant.kernel.arg_names
    types = {n: "constexpr" if n in variant.constants else variant.types[n] for n in names}
    values = {(names.index(name),): value for name, value in variant.constants.items()}
    source = ASTSource(fn=variant.kernel, signature=types, constexprs=values)
    return compile(source, target=GPUTarget("cuda", capability, 32), options=variant.options)


def variants() -> Iterator[Variant]:
    yield from nf4_linear()
    yield from preprocess()
    yield from rms_norm()


def typed(kind: str, **groups: str) -> dict[str, str]:
    """Names separated by blanks to types: data (pointers to `kind`), f32, i32, f (a number)."""
    names = {"data": f"*{kind}", "f32": "*fp32", "i32": "i32", "f": "fp32", "flags": "*i1"}
    return {name: names[group] for group, found in groups.items() for name in found.split()}


def split(
    constants: dict[str, Any], more: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, int]]:
    """Constants of the kernel, and options of its launch."""
    joined = {**constants, **(more or {})}
    options = {k: joined.pop(k) for k in ("num_warps", "num_stages") if k in joined}
    return joined, options


def nf4_linear() -> Iterator[Variant]:
    from fastvla_core.kernels.nf4_linear import triton as nf4

    pointers = {"packed": "*u8", "code": "*fp32", "absmax2": "*fp32", "offset": "*fp32"}
    for nested in (False, True):
        layout = {"BLOCK": 64, "BLOCK2": 256, "NESTED": nested}
        weight = {**pointers, "absmax": "*u8" if nested else "*fp32", "levels": "*fp32"}
        unpack = {**weight, "out": "*bf16", "count": "i32"}
        yield Variant(
            name=f"nf4 unpack, nested {nested}",
            kernel=nf4._dequantize_kernel,
            types=unpack,
            constants={**layout, "BYTES": 1024},
        )
        for rows, inputs, name, dtype in [
            (1, 2048, "bf16", torch.bfloat16),
            (50, 2048, "bf16", torch.bfloat16),
            (50, 4304, "bf16", torch.bfloat16),
            (128, 720, "bf16", torch.bfloat16),
            (50, 721, "fp16", torch.float16),
            (50, 2048, "fp32", torch.float32),
        ]:
            tiles = nf4.pick_tiles(rows, inputs, dtype)
            sizes = dict.fromkeys(("M", "N", "stride_xm", "stride_xk"), "i32")
            data = dict.fromkeys(("x", "bias", "out"), f"*{name}")
            shape = {"TILE_M": tiles.m, "TILE_N": tiles.n, "TILE_K": tiles.k}
            flags = {**layout, **shape, "PAIRED": inputs % 2 == 0, "HAS_BIAS": True}
            flags |= {"ALIGNED": inputs % 64 == 0, "K": inputs}
            yield Variant(
                name=f"nf4 {name} M={rows} K={inputs}, nested {nested}",
                kernel=nf4._linear_kernel,
                types={**weight, **data, **sizes},
                constants=flags,
                options={"num_warps": tiles.warps, "num_stages": tiles.stages},
            )


def preprocess() -> Iterator[Variant]:
    from fastvla_core.kernels.preprocess import triton as images

    for patch in (0, 14):
        yield Variant(
            name=f"preprocess, patch {patch}",
            kernel=images._preprocess_kernel,
            types={"table": "*i64", "out": "*bf16", "cameras": "i32"},
            constants={"H": 224, "W": 224, "PATCH": patch, "COLUMNS": 13, "PIXELS": 256},
        )


def rms_norm() -> Iterator[Variant]:
    from fastvla_core.kernels.rms_norm import triton as norm

    for width, adaptive in [(2048, False), (1024, True), (720, False)]:
        layout = norm.Rows(
            rows=50, groups=1, width=width, adds=True, gated=adaptive, shifted=adaptive
        )
        constants, options = split(layout.constants)
        weight = "*bf16" if adaptive else "*fp32"
        sizes = "rows_per_group rows_per_part stride_gate stride_factor stride_shift"
        types = typed(
            "bf16",
            data="x branch gate shift total out grad_total grad_out grad_x grad_branch",
            f32="rstd part_gate part_factor part_shift",
            i32=sizes,
            f="eps offset",
        )
        for kernel in (norm._forward_kernel, norm._backward_kernel):
            yield Variant(
                name=f"rms_norm {kernel.__name__} d={width}, adaptive {adaptive}",
                kernel=kernel,
                types={**types, "factor": weight},
                constants=constants,
                options=options,
            )
