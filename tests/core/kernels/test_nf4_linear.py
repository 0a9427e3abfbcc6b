"""The NF4 product on the CPU: values, gradients, types, refusals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvla_core.errors import KernelInputError
from fastvla_core.kernels.activation import FUNCTIONS, ActivationName
from fastvla_core.kernels.nf4_linear import NF4_LEVELS, dequantize, nf4_linear
from fastvla_core.quant import nf4

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 40), k=st.integers(1, 150), nested=st.booleans())
def test_unpacking_follows_the_layout_element_by_element(n: int, k: int, nested: bool) -> None:
    weight = nf4.quantize(torch.randn(n, k), nested=nested)
    scales = weight.absmax.double()
    if weight.nested is not None:
        second = weight.nested
        outer = second.absmax.double().repeat_interleave(second.block)[: len(scales)]
        scales = second.code.double()[weight.absmax.long()] * outer + second.offset.double()
    packed = weight.packed.view(-1).tolist()
    expected = []
    for index in range(n * k):
        byte = packed[index // 2]
        level = NF4_LEVELS[byte >> 4 if index % 2 == 0 else byte & 15]
        expected.append(level * scales[index // 64].item())
    exact = torch.tensor(expected, dtype=torch.float64).view(n, k)
    torch.testing.assert_close(
        dequantize(weight, torch.float32).double(), exact, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(64,), (3, 64), (2, 3, 64), (0, 64)])
def test_product_equals_the_unpacked_one(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    weight, bias = nf4.quantize(torch.randn(20, 64)), torch.randn(20)
    x = torch.randn(shape).to(dtype)
    result = nf4_linear(x, weight, bias.to(dtype))
    exact = x.double() @ dequantize(weight, dtype).double().T + bias.to(dtype).double()
    assert (result.dtype, result.shape) == (dtype, (*shape[:-1], 20))
    step = 1e-5 if dtype == torch.float32 else 4e-2 if dtype == torch.bfloat16 else 5e-3
    torch.testing.assert_close(result.double(), exact, atol=step, rtol=step)


@pytest.mark.parametrize("with_gradients", [False, True])
@pytest.mark.parametrize("activation", ["relu", "silu", "gelu_tanh"])
def test_an_activation_comes_behind_the_bias(
    activation: ActivationName, with_gradients: bool
) -> None:
    weight, bias = nf4.quantize(torch.randn(20, 64)), torch.randn(20)
    x = torch.randn(3, 64, requires_grad=with_gradients)
    found = nf4_linear(x, weight, bias, activation=activation)
    assert torch.equal(found, FUNCTIONS[activation](nf4_linear(x, weight, bias)))
    if with_gradients:
        (grad,) = torch.autograd.grad(found.sum(), x)
        (expected,) = torch.autograd.grad(
            FUNCTIONS[activation](x @ dequantize(weight, torch.float32).T + bias).sum(), x
        )
        torch.testing.assert_close(grad, expected, atol=1e-4, rtol=1e-4)


def test_half_precision_on_a_cpu_is_multiplied_in_float32() -> None:
    weight = nf4.quantize(torch.randn(8, 64))
    x = torch.randn(5, 64).half()
    exact = (x.float() @ dequantize(weight, torch.float32).T).half()
    assert torch.equal(nf4_linear(x, weight), exact)


@pytest.mark.parametrize("k", [64, 53])
def test_gradients_equal_those_of_a_dense_layer(k: int) -> None:
    weight = nf4.quantize(torch.randn(7, k))
    dense = dequantize(weight, torch.float32)
    x, bias = torch.randn(2, 3, k, requires_grad=True), torch.randn(7, requires_grad=True)
    grad = torch.randn(2, 3, 7)
    ours = torch.autograd.grad(nf4_linear(x, weight, bias), (x, bias), grad)
    theirs = torch.autograd.grad(torch.nn.functional.linear(x, dense, bias), (x, bias), grad)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_keep_the_types_of_their_inputs(dtype: torch.dtype) -> None:
    weight = nf4.quantize(torch.randn(7, 64))
    x = torch.randn(3, 64).to(dtype).requires_grad_()
    bias = torch.randn(7, requires_grad=True)
    nf4_linear(x, weight, bias).sum().backward()
    assert x.grad is not None
    assert bias.grad is not None
    assert (x.grad.dtype, bias.grad.dtype) == (dtype, torch.float32)
    torch.testing.assert_close(bias.grad, torch.full((7,), 3.0))


def test_the_backward_pass_keeps_no_unpacked_weight() -> None:
    weight = nf4.quantize(torch.randn(7, 64))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        nf4_linear(torch.randn(3, 64, requires_grad=True), weight)
    assert not kept


@pytest.mark.parametrize("x", [torch.zeros(3, 65), torch.tensor(1.0), torch.zeros(3, 64).double()])
def test_inputs_that_do_not_fit_are_refused(x: torch.Tensor) -> None:
    with pytest.raises(KernelInputError, match=r"nf4_linear: .*\n.*to mend"):
        nf4_linear(x, nf4.quantize(torch.randn(4, 64)))
