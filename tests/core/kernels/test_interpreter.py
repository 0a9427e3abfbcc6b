"""Runs the kernel cases in Triton's interpreter; it must be chosen before Triton is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("triton")

HERE = Path(__file__).parent
# Together where they are small: to start a process takes as long as most of the files.
GROUPS = {
    "images and NF4": ("preprocess", "nf4_linear"),
    "rows and products": ("rms_norm", "qkv_rope", "gated_mlp", "residual_mlp", "flow_step"),
    "attention": ("prefix_attention", "cross_attention"),
    "layers": ("layers",),
}
# Triton 3.6 with a NumPy that still allows it, but says so.
_OLD_NUMPY = ("-W", "ignore:Conversion of an array with ndim:DeprecationWarning")


def test_every_file_of_cases_is_in_a_group() -> None:
    named = {f"test_{name}_cases.py" for names in GROUPS.values() for name in names}
    assert named == {path.name for path in (HERE / "triton_cases").glob("test_*.py")}


# A machine that does much else takes many times the seconds that the cases need.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("group", GROUPS)
def test_kernels_pass_in_the_interpreter(group: str) -> None:
    release = tuple(int(part) for part in version("triton").split(".")[:2])
    strict = np.lib.NumpyVersion(np.__version__) >= "2.4.0"
    if group != "images and NF4" and release < (3, 7) and strict:
        pytest.skip("Triton 3.6 takes an array of one number for a number; NumPy 2.4 does not")
    files = [str(HERE / "triton_cases" / f"test_{name}_cases.py") for name in GROUPS[group]]
    command = [sys.executable, "-m", "pytest", "-rs", "-o", "timeout=600", *_OLD_NUMPY, *files]
    root = HERE.parents[2]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=890, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
