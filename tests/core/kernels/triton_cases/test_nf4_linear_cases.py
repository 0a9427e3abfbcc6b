"""The NF4 kernels against the reference: every type, odd shapes, nothing written beside."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastvla_core.kernels import switch
from fastvla_core.kernels.activation import ActivationName
from fastvla_core.kernels.nf4_linear import Nf4Weight, nf4_linear, reference
from fastvla_core.quant import nf4

pytest.importorskip("triton")
pytestmark = pytest.mark.gpu

MARGIN = 64
HALF = (torch.float16, torch.bfloat16)


def packed(n: int, k: int, *, nested: bool, device: torch.device) -> Nf4Weight:
    generator = torch.Generator().manual_seed(n * 1000 + k)
    weight = nf4.quantize(torch.randn(n, k, generator=generator) * 0.1, nested=nested)
    second = weight.nested
    if second is not None:
        second = dataclasses.replace(
            second,
            code=second.code.to(device),
            absmax=second.absmax.to(device),
            offset=second.offset.to(device),
        )
    return dataclasses.replace(
        weight, packed=weight.packed.to(device), absmax=weight.absmax.to(device), nested=second
    )


def nan_framed(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return NaN memory with a margin on either side of a [rows, columns] window."""
    return torch.full((shape[0] * shape[1] + 2 * MARGIN,), float("nan"), dtype=dtype, device=device)


def window(frame: Tensor, shape: tuple[int, int]) -> Tensor:
    return frame[MARGIN:-MARGIN].view(shape)


def assert_frame_untouched(frame: Tensor) -> None:
    assert frame[:MARGIN].isnan().all()
    assert frame[-MARGIN:].isnan().all()


def check_linear(
    m: int, n: int, k: int, *, dtype: torch.dtype, nested: bool, device: torch.device
) -> None:
    from fastvla_core.kernels.nf4_linear import triton as kernel

    weight = packed(n, k, nested=nested, device=device)
    x = torch.randn(m, k).to(device, dtype)
    bias = torch.randn(n).to(device, dtype)
    frame = nan_framed((m, n), dtype, device)
    result = kernel.nf4_linear(x, weight, bias, out=window(frame, (m, n)))
    # The operands are equal to the last bit; only the order of the float32 sum may differ.
    dense = reference.dequantize(weight, dtype).double()
    exact = x.double() @ dense.T + bias.double()
    step = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    torch.testing.assert_close(result.double(), exact, atol=step, rtol=step)
    assert_frame_untouched(frame)


SHAPES = [(1, 16, 64), (5, 33, 96), (3, 7, 53), (70, 20, 130), (17, 65, 128), (129, 3, 64)]
GRADIENT_SHAPES = [(1, 16, 64), (5, 33, 96), (3, 7, 53), (70, 20, 130)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_fused_product_equals_reference(
    shape: tuple[int, int, int], nested: bool, dtype: torch.dtype, device: torch.device
) -> None:
    check_linear(*shape, dtype=dtype, nested=nested, device=device)


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu_tanh"])
@pytest.mark.parametrize("k", [64, 53])
def test_the_epilogue_adds_the_bias_and_activates(
    activation: ActivationName, k: int, device: torch.device
) -> None:
    from fastvla_core.kernels.nf4_linear import triton as kernel

    weight = packed(20, k, nested=False, device=device)
    x, bias = 3 * torch.randn(5, k).to(device), torch.randn(20).to(device)
    found = kernel.nf4_linear(x, weight, bias, activation=activation)
    plain = x.double() @ reference.dequantize(weight, torch.float32).double().T + bias.double()
    exact = reference.activate(plain, activation)
    torch.testing.assert_close(found.double(), exact, atol=2e-5, rtol=2e-5)


def check_gradient(
    m: int, n: int, k: int, *, dtype: torch.dtype, nested: bool, device: torch.device
) -> None:
    from fastvla_core.kernels.nf4_linear import triton as kernel

    weight = packed(n, k, nested=nested, device=device)
    grad = torch.randn(m, n).to(device, dtype)
    frame = nan_framed((m, k), dtype, device)
    found = kernel.input_gradient(grad, weight, out=window(frame, (m, k)))
    exact = grad.double() @ reference.dequantize(weight, dtype).double()
    step = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    torch.testing.assert_close(found.double(), exact, atol=step, rtol=step)
    assert_frame_untouched(frame)


@pytest.mark.parametrize("shape", GRADIENT_SHAPES)
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_gradient_of_the_input_equals_the_dense_one(
    shape: tuple[int, int, int], nested: bool, dtype: torch.dtype, device: torch.device
) -> None:
    check_gradient(*shape, dtype=dtype, nested=nested, device=device)


def test_as_many_rows_as_a_batch_of_prefixes_has(device: torch.device) -> None:
    check_linear(1024, 3, 36, dtype=torch.float16, nested=True, device=device)
    check_gradient(1024, 3, 36, dtype=torch.float16, nested=True, device=device)


def test_the_switch_turns_the_gradient_kernel_on(
    monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    from fastvla_core.kernels.nf4_linear import triton as kernel

    weight = packed(20, 96, nested=False, device=device)
    x, grad = (torch.randn(2, 3, k).to(device) for k in (96, 20))
    monkeypatch.setenv("FASTVLA_KERNELS", "nf4_backward")
    switch.switched_on.cache_clear()
    try:
        out = nf4_linear(x.requires_grad_(), weight, activation="silu")
        (found,) = torch.autograd.grad(out, x, grad)
    finally:
        switch.switched_on.cache_clear()
    product = nf4_linear(x.detach(), weight).requires_grad_()
    (behind,) = torch.autograd.grad(torch.nn.functional.silu(product), product, grad)
    assert torch.equal(found, kernel.input_gradient(behind, weight))


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 70), st.integers(1, 140)),
    nested=st.booleans(),
)
def test_fused_product_serves_any_shape(
    shape: tuple[int, int, int], nested: bool, device: torch.device
) -> None:
    check_linear(*shape, dtype=torch.float32, nested=nested, device=device)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 7), (33, 96), (40, 64), (65, 130)])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_unpacking_equals_reference(
    n: int, k: int, nested: bool, dtype: torch.dtype, device: torch.device
) -> None:
    from fastvla_core.kernels.nf4_linear import triton as kernel

    weight = packed(n, k, nested=nested, device=device)
    frame = nan_framed((n, k), dtype, device)
    result = kernel.dequantize(weight, dtype, out=window(frame, (n, k)))
    expected = reference.dequantize(weight, dtype)
    if nested and device.type == "cuda":
        # A GPU fuses code * absmax + offset, which rounds once instead of twice.
        torch.testing.assert_close(result, expected, rtol=1e-2 if dtype in HALF else 1e-6, atol=0)
    else:
        assert torch.equal(result, expected)
    assert_frame_untouched(frame)


def test_strided_input_is_read_in_place(device: torch.device) -> None:
    from fastvla_core.kernels.nf4_linear import triton as kernel

    weight = packed(20, 64, nested=False, device=device)
    x = torch.randn(64, 6).to(device).T
    result = kernel.nf4_linear(x, weight, None)
    torch.testing.assert_close(result, reference.nf4_linear(x, weight, None), atol=1e-5, rtol=1e-5)


def test_leading_dimensions_are_kept(device: torch.device) -> None:
    from fastvla_core.kernels.nf4_linear import triton as kernel

    weight = packed(20, 64, nested=False, device=device)
    x = torch.randn(2, 3, 64).to(device)
    result = kernel.nf4_linear(x, weight, None)
    torch.testing.assert_close(result, reference.nf4_linear(x, weight, None), atol=1e-5, rtol=1e-5)


def test_no_rows_give_no_rows(device: torch.device) -> None:
    from fastvla_core.kernels.nf4_linear import triton as kernel

    weight = packed(4, 64, nested=False, device=device)
    assert kernel.nf4_linear(torch.zeros(0, 64, device=device), weight, None).shape == (0, 4)


@pytest.mark.parametrize("rows", [3, 300])
@pytest.mark.parametrize("nested", [False, True])
def test_every_device_gives_the_same_values_and_gradients(
    rows: int, nested: bool, device: torch.device
) -> None:
    cpu, here = (packed(20, 96, nested=nested, device=d) for d in (torch.device("cpu"), device))
    x, bias, grad = torch.randn(rows, 96), torch.randn(20), torch.randn(rows, 20)
    results = []
    for weight, place in ((cpu, torch.device("cpu")), (here, device)):
        leaves = [t.to(place).requires_grad_() for t in (x.clone(), bias.clone())]
        out = nf4_linear(leaves[0], weight, leaves[1])
        results.append([out.detach().cpu()])
        results[-1] += [g.cpu() for g in torch.autograd.grad(out, leaves, grad.to(place))]
    torch.testing.assert_close(results[1], results[0], atol=1e-4, rtol=1e-4)
