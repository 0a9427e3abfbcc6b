"""What each kernel asks of a GPU: shared memory, registers, spills; needs no GPU.

    python -m tests.core.kernels.compile_report [--capabilities 80 89 90] [--only rms_norm]

Spills are what `cuobjdump` counts as stack per thread.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

from tests.core.kernels.compile_cases import compile_variant, variants


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack per thread."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "-res-usage", file.name]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", printed)
    assert found is not None, printed
    return int(found[1]), int(found[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--capabilities", type=int, nargs="+", default=[80, 89, 90])
    parser.add_argument("--only", default="", help="variants whose name contains this")
    args = parser.parse_args()
    print("| variant | capability | shared bytes | registers | stack bytes |")
    print("| --- | --- | --- | --- | --- |")
    for variant in variants():
        if args.only not in variant.name:
            continue
        for capability in args.capabilities:
            compiled = compile_variant(variant, capability)
            registers, stack = resources(compiled.asm["cubin"])
            shared = compiled.metadata.shared
            print(f"| {variant.name} | {capability} | {shared} | {registers} | {stack} |")


if __name__ == "__main__":
    main()
