"""NF4 packing: error bound, layout, stored state, refusals."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastvla_core.errors import QuantError
from fastvla_core.quant import nf4

# Half of the widest gap between two levels, from -1 to the next.
WIDEST_HALF_GAP = (nf4.NF4_LEVELS[1] - nf4.NF4_LEVELS[0]) / 2
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ROUNDING = {torch.float32: 2**-22, torch.float16: 2**-10, torch.bfloat16: 2**-7}


def block_absmax(weight: Tensor) -> Tensor:
    """Return for each element the largest magnitude of its block of 64 in row-major order."""
    flat = weight.float().flatten().abs()
    blocks = torch.nn.functional.pad(flat, (0, -flat.numel() % 64)).view(-1, 64)
    return blocks.amax(1).repeat_interleave(64)[: flat.numel()].view(weight.shape)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 60),
    k=st.integers(1, 200),
    dtype=st.sampled_from(DTYPES),
    spread=st.sampled_from([1e-3, 0.05, 30.0]),
)
def test_round_trip_stays_within_half_a_level(n: int, k: int, dtype, spread: float) -> None:
    weight = (torch.randn(n, k) * spread).to(dtype)
    packed = nf4.quantize(weight)
    assert packed.packed.shape == ((n * k + 1) // 2, 1)
    assert packed.absmax.shape == (-(-n * k // 64),)
    error = (nf4.dequantize(packed, dtype).float() - weight.float()).abs()
    bound = block_absmax(weight) * (WIDEST_HALF_GAP + ROUNDING[dtype]) + 1e-7
    assert (error <= bound).all()


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 60), k=st.integers(1, 600))
def test_nested_scales_add_less_than_one_step_of_their_own(n: int, k: int) -> None:
    weight = torch.randn(n, k)
    packed = nf4.quantize(weight, nested=True)
    assert packed.nested is not None
    outer = packed.nested.absmax.max()
    error = (nf4.dequantize(packed, torch.float32) - weight).abs()
    # The widest gap of the code is 0.9 / 64, between midpoints of its last decade.
    bound = block_absmax(weight) * WIDEST_HALF_GAP + outer * 0.9 / 128 + 1e-5
    assert (error <= bound).all()


def test_levels_at_the_block_scale_survive_exactly() -> None:
    weight = torch.tensor(nf4.NF4_LEVELS).repeat(3, 8) * 0.25
    assert torch.equal(nf4.dequantize(nf4.quantize(weight), torch.float32), weight)


def test_even_element_sits_in_the_high_nibble() -> None:
    packed = nf4.quantize(torch.tensor([[1.0, -1.0, 0.0]]))
    assert packed.packed.view(-1).tolist() == [0xF0, 0x77]


def test_zeros_stay_zeros() -> None:
    weight = torch.zeros(3, 50)
    for nested in (False, True):
        assert torch.equal(
            nf4.dequantize(nf4.quantize(weight, nested=nested), torch.float32), weight
        )


def test_packing_a_packed_weight_again_changes_nothing() -> None:
    once = nf4.quantize(torch.randn(40, 70))
    twice = nf4.quantize(nf4.dequantize(once, torch.float32))
    assert torch.equal(once.absmax, twice.absmax)
    assert torch.equal(nf4.dequantize(once, torch.float32), nf4.dequantize(twice, torch.float32))


def test_a_transposed_weight_is_packed_by_its_own_rows() -> None:
    weight = torch.randn(64, 32)
    assert torch.equal(nf4.quantize(weight.T).packed, nf4.quantize(weight.T.contiguous()).packed)


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 20),
    k=st.integers(1, 300),
    dtype=st.sampled_from(DTYPES),
    nested=st.booleans(),
)
def test_stored_state_gives_the_same_weight_back(n: int, k: int, dtype, nested: bool) -> None:
    weight = nf4.quantize(torch.randn(n, k).to(dtype), nested=nested)
    again = nf4.from_state(nf4.to_state(weight))
    assert (again.shape, again.block, again.dtype) == (weight.shape, 64, dtype)
    assert torch.equal(nf4.dequantize(again, dtype), nf4.dequantize(weight, dtype))


def test_packed_weights_stored_as_another_type_are_read() -> None:
    weight = nf4.quantize(torch.randn(8, 64))
    state = nf4.to_state(weight) | {"": weight.packed.view(-1).view(torch.bfloat16)[:, None]}
    assert torch.equal(nf4.from_state(state).packed, weight.packed)


def edited(**changes: object) -> dict[str, Tensor]:
    """Return a stored state with changes to its JSON part; None removes a key."""
    state = nf4.to_state(nf4.quantize(torch.randn(8, 64), nested=True))
    meta = json.loads(bytes(state[nf4.STATE_KEY].tolist())) | changes
    meta = {key: value for key, value in meta.items() if value is not None}
    return state | {nf4.STATE_KEY: torch.tensor(list(json.dumps(meta).encode()), dtype=torch.uint8)}


def without(key: str) -> dict[str, Tensor]:
    state = edited()
    del state[key]
    return state


@pytest.mark.parametrize(
    "state",
    [
        without(nf4.STATE_KEY),
        without("absmax"),
        without("quant_map"),
        without(""),
        without("nested_quant_map"),
        edited(quant_type="fp4"),
        edited(shape=[9, 64]),
        edited(shape=[512]),
        edited(blocksize=0),
        edited(blocksize=128),
        edited(dtype="complex"),
        edited(nested_offset=None),
        edited(nested_blocksize=4),
        edited() | {"quant_map": torch.linspace(-1, 1, 16)},
        edited() | {"absmax": torch.zeros(3, dtype=torch.uint8)},
        edited() | {"nested_quant_map": torch.zeros(255)},
        edited() | {nf4.STATE_KEY: torch.tensor([123, 34], dtype=torch.uint8)},
        edited() | {nf4.STATE_KEY: torch.tensor([49], dtype=torch.uint8)},
    ],
)
def test_damaged_states_are_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(QuantError, match="not an NF4 weight as bitsandbytes stores it"):
        nf4.from_state(state)


@pytest.mark.parametrize(
    "weight",
    [
        torch.zeros(5),
        torch.zeros(0, 5),
        torch.zeros(4, 4, dtype=torch.uint8),
        torch.tensor([[1.0, float("nan")]]),
        torch.tensor([[1.0, float("inf")]]),
    ],
)
def test_weights_that_cannot_be_packed_are_refused(weight: Tensor) -> None:
    with pytest.raises(QuantError):
        nf4.quantize(weight)
