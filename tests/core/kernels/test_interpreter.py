"""Runs the kernel cases in Triton's interpreter; it must be chosen before Triton is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

HERE = Path(__file__).parent
CASES = sorted(path.name for path in (HERE / "triton_cases").glob("test_*.py"))


@pytest.mark.parametrize("name", CASES)
def test_kernels_pass_in_the_interpreter(name: str) -> None:
    command = [sys.executable, "-m", "pytest", "-rs", str(HERE / "triton_cases" / name)]
    root = HERE.parents[2]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
