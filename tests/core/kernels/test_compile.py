"""The kernels compile to machine code for the GPUs we name; Triton can do that without a GPU."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

# The three instruction sets for matrix products: up to Ada (also Orin), Hopper, Blackwell.
CAPABILITIES = [80, 90, 100]

POINTERS = {"packed": "*u8", "code": "*fp32", "absmax2": "*fp32", "offset": "*fp32"}


def compile_for(capability: int) -> None:
    """Compile every kernel variant for one compute capability."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    target = GPUTarget("cuda", capability, 32)
    for kernel, signature, constants, options in variants():
        names = kernel.arg_names
        types = {name: "constexpr" if name in constants else signature[name] for name in names}
        values = {(names.index(name),): value for name, value in constants.items()}
        source = ASTSource(fn=kernel, signature=types, constexprs=values)
        compiled = compile(source, target=target, options=options)
        assert compiled.asm["cubin"]
        # What every one of these GPUs grants a block without opting in to more.
        assert compiled.metadata.shared <= 48 * 1024


def variants() -> list[tuple[Any, dict[str, str], dict[str, Any], dict[str, int]]]:
    from fastvla_core.kernels.nf4_linear import triton as nf4
    from fastvla_core.kernels.preprocess import triton as images

    found: list[tuple[Any, dict[str, str], dict[str, Any], dict[str, int]]] = []
    for nested in (False, True):
        layout = {"BLOCK": 64, "BLOCK2": 256, "NESTED": nested}
        weight = {**POINTERS, "absmax": "*u8" if nested else "*fp32", "levels": "*fp32"}
        unpack = {**weight, "out": "*bf16", "count": "i32"}
        found.append((nf4._dequantize_kernel, unpack, {**layout, "BYTES": 1024}, {}))
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
            signature = {**weight, **data, **sizes}
            options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
            found.append((nf4._linear_kernel, signature, flags, options))
    for patch in (0, 14):
        constants = {"H": 224, "W": 224, "PATCH": patch, "COLUMNS": 13, "PIXELS": 256}
        signature = {"table": "*i64", "out": "*bf16", "cameras": "i32"}
        found.append((images._preprocess_kernel, signature, constants, {}))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_kernels_compile(capability: int) -> None:
    # In a process of its own: this one may have Triton's interpreter or a GPU driver active.
    code = f"from {__name__} import compile_for; compile_for({capability})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stderr
