"""The quantised layers as modules: values, gradients, saving, moving, unpacking once."""

from __future__ import annotations

import contextlib
import copy
import io
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastvla_core.quant import Int8Linear, Nf4Linear, QuantizedLinear, dequantized

Make = Callable[[nn.Linear], QuantizedLinear]
KINDS: dict[str, Make] = {
    "nf4": Nf4Linear.from_linear,
    "nf4 nested": lambda linear: Nf4Linear.from_linear(linear, nested=True),
    "int8": Int8Linear.from_linear,
}


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


def dense_result(layer: QuantizedLinear, x: Tensor) -> Tensor:
    return nn.functional.linear(x, layer.dense(x.dtype), layer.bias)


@pytest.mark.parametrize("bias", [True, False])
def test_layer_multiplies_by_its_unpacked_weight(make: Make, bias: bool) -> None:
    linear = nn.Linear(53, 24, bias=bias)
    layer, x = make(linear), torch.randn(2, 5, 53)
    torch.testing.assert_close(layer(x), dense_result(layer, x))
    assert (layer(x) - linear(x)).abs().max() < 0.3
    assert (layer.in_features, layer.out_features) == (53, 24)


def test_gradients_reach_input_and_bias_only(make: Make) -> None:
    layer = make(nn.Linear(64, 8))
    assert layer.bias is not None
    x = torch.randn(3, 64, requires_grad=True)
    grads = torch.autograd.grad(layer(x).square().sum(), (x, layer.bias))
    expected = torch.autograd.grad(dense_result(layer, x).square().sum(), (x, layer.bias))
    torch.testing.assert_close(grads, expected)
    assert [name for name, _ in layer.named_parameters()] == ["bias"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_result_has_the_type_of_the_input(make: Make, dtype: torch.dtype) -> None:
    layer = make(nn.Linear(64, 8))
    x = torch.randn(3, 64).to(dtype).requires_grad_()
    result = layer(x)
    result.sum().backward()
    assert x.grad is not None
    assert (result.dtype, x.grad.dtype) == (dtype, dtype)


def test_autocast_chooses_the_type(make: Make) -> None:
    layer, x = make(nn.Linear(64, 8)), torch.randn(3, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_saved_state_loads_into_a_blank_layer_of_the_same_kind(make: Make) -> None:
    layer = make(nn.Linear(53, 24))
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    blank = type(layer).blank(nn.Linear(53, 24))
    blank.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(2, 53)
    assert torch.equal(blank(x), layer(x))


def test_stored_names_are_those_of_bitsandbytes() -> None:
    linear = nn.Linear(64, 8)
    nested = {"weight.nested_absmax", "weight.nested_quant_map"}
    plain = {
        "bias",
        "weight",
        "weight.absmax",
        "weight.quant_map",
        "weight.quant_state.bitsandbytes__nf4",
    }
    assert set(Nf4Linear.from_linear(linear).state_dict()) == plain
    assert set(Nf4Linear.from_linear(linear, nested=True).state_dict()) == plain | nested
    assert set(Int8Linear.from_linear(linear).state_dict()) == {
        "bias",
        "weight",
        "SCB",
        "weight_format",
    }


def test_a_layer_without_memory_takes_what_is_stored(make: Make) -> None:
    layer = make(nn.Linear(64, 8))
    with torch.device("meta"):
        blank = type(layer).blank(nn.Linear(64, 8))
    blank.load_state_dict(layer.state_dict(), assign=True)
    x = torch.randn(2, 64)
    assert torch.equal(blank(x), layer(x))


def test_wrong_and_missing_and_surplus_entries_are_named(make: Make) -> None:
    layer = make(nn.Linear(64, 8))
    state = layer.state_dict()
    other = type(layer).blank(nn.Linear(64, 9))
    del other.bias
    other.register_parameter("bias", None)
    with pytest.raises(RuntimeError, match="the checkpoint belongs to another model"):
        other.load_state_dict({k: v for k, v in state.items() if k != "bias"})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*bias"):
        other.load_state_dict(state)
    blank = type(layer).blank(nn.Linear(64, 8))
    with pytest.raises(RuntimeError, match=r"Missing key.*weight"):
        blank.load_state_dict({"bias": state["bias"]})
    with pytest.raises(RuntimeError, match=r"Missing key.*bias"):
        blank.load_state_dict({k: v for k, v in state.items() if k != "bias"})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*weight\.zero_point"):
        blank.load_state_dict(state | {"weight.zero_point": torch.zeros(1)})


def test_full_precision_weights_are_not_taken_for_packed_ones(make: Make) -> None:
    blank = type(make(nn.Linear(64, 8))).blank(nn.Linear(64, 8))
    with pytest.raises(RuntimeError, match="to mend"):
        blank.load_state_dict(nn.Linear(64, 8).state_dict())


def test_changing_the_type_of_a_model_leaves_the_scales_alone(make: Make) -> None:
    layer = make(nn.Linear(64, 8))
    before = layer.dense(torch.float32)
    layer.half().bfloat16().double()
    assert torch.equal(layer.dense(torch.float32), before)
    assert layer.bias is not None
    assert layer.bias.dtype == torch.float64


def test_a_deep_copy_is_independent(make: Make) -> None:
    layer = make(nn.Linear(64, 8))
    twin = copy.deepcopy(layer)
    next(layer.buffers()).zero_()
    assert not torch.equal(twin.dense(torch.float32), layer.dense(torch.float32))


def test_the_compiler_takes_the_layer_whole(make: Make) -> None:
    layer, x = make(nn.Linear(64, 8)), torch.randn(3, 64, requires_grad=True)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    with torch.inference_mode(), dequantized(layer):
        torch.testing.assert_close(compiled(x), layer(x))
    (grad,) = torch.autograd.grad(compiled(x).sum(), x)
    (expected,) = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(grad, expected)


class Counting(nn.Module):
    """A layer called several times per request, and how often it was unpacked."""

    def __init__(self, layer: QuantizedLinear) -> None:
        super().__init__()
        self.layer = layer
        self.unpacked = 0
        self._dense = layer.dense
        layer.dense = self.count  # type: ignore[method-assign]

    def count(self, dtype: torch.dtype) -> Tensor:
        self.unpacked += 1
        return self._dense(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.layer(x) for _ in range(10)])


def test_ten_calls_unpack_once_and_nothing_is_kept(make: Make) -> None:
    layer = make(nn.Linear(64, 8))
    policy, x = Counting(layer), torch.randn(1, 64)
    outside = policy(x)
    policy.unpacked = 0
    with torch.inference_mode(), dequantized(policy):
        inside = policy(x)
        with dequantized(policy):
            policy(x)
        policy(x)
    assert policy.unpacked == 1
    assert torch.equal(inside, outside)
    assert layer._held is None
    with dequantized(policy):
        policy(x)
    assert policy.unpacked == 2


def test_layers_that_are_not_called_are_not_unpacked(make: Make) -> None:
    policy = Counting(make(nn.Linear(64, 8)))
    with dequantized(policy):
        pass
    assert policy.unpacked == 0


def test_unpacked_weights_are_dropped_after_an_error(make: Make) -> None:
    layer = make(nn.Linear(64, 8))
    with contextlib.suppress(RuntimeError), dequantized(layer):
        layer(torch.randn(1, 64))
        raise RuntimeError
    assert layer._held is None


def test_weights_unpacked_in_inference_mode_still_serve_gradients(make: Make) -> None:
    layer = make(nn.Linear(64, 8))
    x = torch.randn(3, 64, requires_grad=True)
    with dequantized(layer):
        with torch.inference_mode():
            layer(x)
        (grad,) = torch.autograd.grad(layer(x).sum(), x)
    (expected,) = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(grad, expected)


def test_a_thread_may_leave_while_another_is_inside(make: Make) -> None:
    layer, x = make(nn.Linear(64, 8)), torch.randn(1, 64)
    entered, left = threading.Event(), threading.Event()

    def owner() -> None:
        with dequantized(layer):
            entered.set()
            left.wait(10)

    thread = threading.Thread(target=owner)
    thread.start()
    entered.wait(10)
    with dequantized(layer):
        before = layer(x)
        left.set()
        thread.join(10)
        after = layer(x)
    assert torch.equal(before, after)
