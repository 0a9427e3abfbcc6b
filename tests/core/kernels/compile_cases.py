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
    # What a launch finds out: torch's memory is aligned, and so are the rows of most widths.
    pointers = [n for n in names if variant.types.get(n, "").startswith("*")]
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in pointers}
    types = {n: "constexpr" if n in variant.constants else variant.types[n] for n in names}
    values = {(names.index(name),): value for name, value in variant.constants.items()}
    source = ASTSource(fn=variant.kernel, signature=types, constexprs=values, attrs=aligned)
    return compile(source, target=GPUTarget("cuda", capability, 32), options=variant.options)


def variants() -> Iterator[Variant]:
    yield from nf4_linear()
    yield from preprocess()
    yield from rms_norm()
    yield from qkv_rope()
    yield from gated_mlp()
    yield from prefix_attention()
    yield from cross_attention()
    yield from residual_mlp()
    yield from flow_step()


def typed(kind: str, **groups: str) -> dict[str, str]:
    """Names separated by blanks to types: data points to `kind`, i32 and f are numbers."""
    names = {"data": f"*{kind}", "f32": "*fp32", "i32": "i32", "f": "fp32"}
    names |= {"i1": "*i1", "i8": "*i8", "i64": "*i64"}
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
            flags |= {"ALIGNED": inputs % 64 == 0, "K": inputs, "ACTIVATION": "gelu_tanh"}
            options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
            yield Variant(
                name=f"nf4 {name} M={rows} K={inputs}, nested {nested}",
                kernel=nf4._linear_kernel,
                types={**weight, **data, **sizes},
                constants=flags,
                options=options,
            )
            names = nf4._gradient_kernel.arg_names
            yield Variant(
                name=f"nf4 gradient {name} M={rows} K={inputs}, nested {nested}",
                kernel=nf4._gradient_kernel,
                types={**weight, **data, **sizes, "grad": f"*{name}"},
                constants={key: value for key, value in flags.items() if key in names},
                options=options,
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


def qkv_rope() -> Iterator[Variant]:
    from fastvla_core.kernels.qkv_rope import triton as qkv
    from fastvla_core.kernels.tiles import product_tiles

    for kind, dtype, rows, width, heads, groups, half in [
        ("bf16", torch.bfloat16, 50, 1024, 8, 1, 128),
        ("bf16", torch.bfloat16, 560, 2048, 8, 1, 128),
        ("fp16", torch.float16, 1, 720, 15, 5, 32),
        ("fp32", torch.float32, 50, 720, 15, 5, 32),
    ]:
        sizes = {"K": width, "HEADS": heads, "GROUPS": groups, "HALF": half}
        flags = {"BIASED": True, "ROTATES": True}
        constants, options = split({**sizes, **flags}, product_tiles(rows, dtype).constants)
        yield Variant(
            name=f"qkv_rope {kind} M={rows} K={width} d={2 * half}",
            kernel=qkv._qkv_kernel,
            types=typed(
                kind,
                data="x q_weight k_weight v_weight q_bias k_bias v_bias q k v",
                f32="cos sin",
                i32="M tokens stride_angle_b stride_angle_t",
            ),
            constants=constants,
            options=options,
        )


def gated_mlp() -> Iterator[Variant]:
    from fastvla_core.kernels.gated_mlp import triton as gated
    from fastvla_core.kernels.tiles import product_tiles

    for kind, dtype, rows, width, activation in [
        ("bf16", torch.bfloat16, 50, 1024, "gelu_tanh"),
        ("bf16", torch.bfloat16, 560, 2048, "gelu_tanh"),
        ("fp16", torch.float16, 1, 720, "silu"),
        ("fp32", torch.float32, 50, 720, "silu"),
    ]:
        sizes = {"K": width, "ACTIVATION": activation}
        constants, options = split(sizes, product_tiles(rows, dtype).constants)
        yield Variant(
            name=f"gated_mlp {kind} M={rows} K={width} {activation}",
            kernel=gated._gated_kernel,
            types=typed(kind, data="x gate_weight up_weight out", i32="M N"),
            constants=constants,
            options=options,
        )


HEADS = [
    ("bf16", torch.bfloat16, 8, 1, 50, 560, 256),
    ("bf16", torch.bfloat16, 8, 1, 560, 0, 256),
    ("fp16", torch.float16, 15, 5, 50, 192, 64),
    ("fp32", torch.float32, 8, 1, 50, 560, 256),
]


def prefix_attention() -> Iterator[Variant]:
    from fastvla_core.kernels.prefix_attention import triton as attention

    for kind, dtype, heads, groups, tokens, prefix, d in HEADS:
        shared = heads // groups
        tiles = attention.pick_tiles(
            rows=shared * tokens, keys=prefix + tokens, pairs=groups, head_dim=d, dtype=dtype
        )
        sizes = {"GROUPS": groups, "SHARED": shared, "D": d, "BLOCK_D": d}
        constants, options = split({**sizes, "HAS_PREFIX": prefix > 0}, tiles.constants)
        strides = " ".join(
            [f"stride_q{axis}" for axis in "bht"]
            + [f"stride_{part}{axis}" for part in ("pk", "pv", "ok", "ov") for axis in "bgs"]
        )
        types = typed(
            kind,
            data="q prefix_k prefix_v own_k own_v out",
            i64="query_blocks key_blocks",
            i1="key_mask",
            f32="lse parts",
            i32=f"tokens prefix_keys own_keys keys_per_split {strides}",
            f="scale",
        )
        name = f"{kind} t={tokens} p={prefix} d={d}, {tiles.splits} parts"
        yield Variant(
            name=f"prefix_attention {name}",
            kernel=attention._attend_kernel,
            types=types,
            constants=constants,
            options=options,
        )
        joined = {"D": d, "BLOCK_D": d, "SPLITS": tiles.splits, "BLOCK_SPLITS": 16}
        yield Variant(
            name=f"prefix_attention join {name}",
            kernel=attention._join_kernel,
            types=types,
            constants=joined,
        )


def cross_attention() -> Iterator[Variant]:
    from fastvla_core.kernels.cross_attention import triton as cross
    from fastvla_core.kernels.tiles import product_tiles

    for kind, dtype, d in [
        ("bf16", torch.bfloat16, 64),
        ("bf16", torch.bfloat16, 128),
        ("bf16", torch.bfloat16, 256),
        ("fp32", torch.float32, 64),
    ]:
        sizes = {"GROUPS": 8, "D": d, "BLOCK_D": d}
        constants, options = split(sizes, cross.pick_tiles(head_dim=d, dtype=dtype).constants)
        types = typed(
            kind,
            data="q k v grad grad_q grad_k grad_v",
            i1="key_mask",
            f32="lse delta",
            i32="rows keys",
            f="scale inverse_root",
        )
        for kernel in (cross._query_gradient_kernel, cross._memory_gradient_kernel):
            yield Variant(
                name=f"cross_attention {kernel.__name__} {kind} d={d}",
                kernel=kernel,
                types=types,
                constants=constants,
                options=options,
            )
    for kind, dtype in [("bf16", torch.bfloat16), ("fp32", torch.float32)]:
        sizes = {"K": 1024, "HAS_BIAS": True}
        constants, options = split(sizes, product_tiles(50, dtype).constants)
        yield Variant(
            name=f"cross_attention gated projection {kind} K=1024",
            kernel=cross._gated_kernel,
            types=typed(kind, data="x hidden weight bias out", f32="gate", i32="M N"),
            constants=constants,
            options=options,
        )


def residual_mlp() -> Iterator[Variant]:
    from fastvla_core.kernels.residual_mlp import triton as residual
    from fastvla_core.kernels.tiles import product_tiles

    for kind, dtype, rows, width in [
        ("bf16", torch.bfloat16, 50, 512),
        ("bf16", torch.bfloat16, 400, 1024),
        ("fp32", torch.float32, 50, 512),
    ]:
        types = typed(
            kind,
            data="x norm_weight norm_bias weight bias out grad_normed grad_out grad_x normed",
            i8="active",
            f32="mean rstd part_weight part_bias",
            i32="M N rows rows_per_part",
            f="eps",
        )
        sizes = {"K": width, "ADDS": True}
        constants, options = split(sizes, product_tiles(rows, dtype).constants)
        yield Variant(
            name=f"residual_mlp block {kind} M={rows} K={width}",
            kernel=residual._block_kernel,
            types=types,
            constants=constants,
            options=options,
        )
        yield Variant(
            name=f"residual_mlp gradient {kind} K={width}",
            kernel=residual._norm_gradient_kernel,
            types=types,
            constants={**sizes, "BLOCK": width},
            options={"num_warps": 4},
        )


def flow_step() -> Iterator[Variant]:
    from fastvla_core.kernels.flow_step import triton as flow

    for kind, width, tile in [("bf16", 1024, 128), ("fp32", 720, 32)]:
        yield Variant(
            name=f"flow_step {kind} d={width}",
            kernel=flow._euler_kernel,
            types=typed(
                kind,
                data="hidden weight bias",
                f32="x out",
                i32="M N tokens stride_hb stride_ht",
                f="steps",
            ),
            constants={"K": width, "HAS_BIAS": True, "TILE_M": 16, "TILE_N": 16, "TILE_K": tile},
            options={"num_warps": 4, "num_stages": 2},
        )
