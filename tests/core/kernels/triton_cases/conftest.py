"""The same cases run on a GPU when there is one, or on the CPU when Triton interprets."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from tests.core.kernels.triton_cases.bfloat16 import teach_the_interpreter


@pytest.fixture(autouse=True)
def same_numbers_in_every_run() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def device() -> torch.device:
    if os.environ.get("TRITON_INTERPRET") == "1":
        teach_the_interpreter()
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1 (see test_interpreter.py)")


@pytest.fixture(params=["float32", "float16", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return getattr(torch, request.param)


@pytest.fixture
def nan_filled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every tensor that torch leaves uninitialised holds NaN: what is not written, shows."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
