"""The simulator and PyTorch's compiler in one process, whichever comes first."""

import importlib.util
import subprocess
import sys

import pytest

DRAW = "from fastvla_core.sim import TabletopSim; TabletopSim().render('front')"


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
@pytest.mark.parametrize("steps", [(DRAW, "import triton"), ("import triton", DRAW)])
def test_triton_can_be_imported_before_and_after_drawing(steps):
    result = subprocess.run(
        [sys.executable, "-c", "; ".join(steps)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-500:]
