"""The kernels compile to machine code for the GPUs we name; Triton can do that without a GPU."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("triton")

# The three instruction sets for matrix products: up to Ada (also Orin), Hopper, Blackwell.
CAPABILITIES = [80, 90, 100]


def compile_for(capability: int) -> None:
    """Compile every kernel variant for one compute capability."""
    from tests.core.kernels.compile_cases import compile_variant, variants

    for variant in variants():
        compiled = compile_variant(variant, capability)
        assert compiled.asm["cubin"], variant.name
        # What every one of these GPUs grants a block without opting in to more.
        assert compiled.metadata.shared <= 48 * 1024, (variant.name, compiled.metadata.shared)


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_kernels_compile(capability: int) -> None:
    # In a process of its own: this one may have Triton's interpreter or a GPU driver active.
    code = f"from {__name__} import compile_for; compile_for({capability})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stderr
