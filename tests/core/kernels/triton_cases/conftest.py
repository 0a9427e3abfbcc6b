"""The same cases run on a GPU when there is one, or on the CPU when Triton interprets."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    if os.environ.get("TRITON_INTERPRET") == "1":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1 (see test_interpreter.py)")
