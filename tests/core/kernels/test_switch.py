"""The switch of the kernels: off unless named, and never for what it cannot serve."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from fastvla_core.errors import KernelInputError
from fastvla_core.kernels import switch


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    switch.switched_on.cache_clear()
    yield
    switch.switched_on.cache_clear()


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", set()), ("rms_norm", {"rms_norm"}), (" rms_norm, ", {"rms_norm"}), ("all", None)],
)
def test_only_what_is_named_is_on(
    value: str, expected: set[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTVLA_KERNELS", value)
    assert switch.switched_on() == (set(switch.OPERATORS) if expected is None else expected)


def test_a_name_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVLA_KERNELS", "rms_norm,rmsnorm")
    with pytest.raises(KernelInputError, match=r"names rmsnorm\n.*rms_norm"):
        switch.switched_on()


def test_tensors_on_the_cpu_take_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVLA_KERNELS", "all")
    assert not switch.takes_kernel("rms_norm", torch.zeros(1))


def test_layers_on_the_cpu_do_not_import_triton() -> None:
    code = """
import sys, torch
from fastvla_core.layers.norm import RMSNorm
RMSNorm(8)(torch.zeros(2, 8))
assert "triton" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
