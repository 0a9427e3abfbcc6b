"""Both ways with bitsandbytes: it reads ours, we read its, and packing gives the same bytes."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from fastvla_core.quant import Int8Linear, Nf4Linear, int8, nf4
from tests.bitsandbytes_defects import unpacked_as_one_row

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    bnb = pytest.importorskip("bitsandbytes")
    functional = pytest.importorskip("bitsandbytes.functional")

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# The last three let a block straddle rows, as SigLIP's fc2 and SmolVLA's expert do.
SHAPES = [(128, 384), (512, 128), (6, 720), (64, 4304), (3, 30)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_packing_gives_the_same_bytes(shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight = (torch.randn(shape) * 0.05).to(dtype)
    packed, state = functional.quantize_4bit(weight, quant_type="nf4")
    ours = nf4.quantize(weight)
    assert torch.equal(ours.packed, packed)
    assert torch.equal(ours.absmax, state.absmax)
    stored = {"": packed, **state.as_dict(packed=True)}
    mine = nf4.to_state(ours)
    assert set(mine) == set(stored)
    assert all(torch.equal(mine[key], stored[key]) for key in stored)


def test_nested_scales_are_at_least_as_near() -> None:
    weight = torch.randn(256, 512) * 0.05
    exact = nf4.quantize(weight).absmax
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    ours = nf4.quantize(weight, nested=True)
    assert ours.nested is not None
    assert torch.equal(ours.packed, packed)
    assert torch.equal(ours.nested.code, state.state2.code)
    assert torch.equal(ours.nested.absmax, state.state2.absmax)
    assert torch.equal(ours.nested.offset, state.offset)
    # Its search is approximate: now and then it takes the second nearest entry.
    differs = ours.absmax != state.absmax
    assert differs.float().mean() < 0.01
    outer = ours.nested.absmax.repeat_interleave(256)
    centred = exact - ours.nested.offset

    def error(index: Tensor) -> Tensor:
        return (state.state2.code[index.long()] * outer - centred).abs()

    assert (error(ours.absmax) <= error(state.absmax) + 1e-9).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nested", [False, True])
def test_we_unpack_theirs_bit_for_bit(
    shape: tuple[int, int], dtype: torch.dtype, nested: bool
) -> None:
    weight = (torch.randn(shape) * 0.05).to(dtype)
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=nested)
    ours = nf4.from_state({"": packed, **state.as_dict(packed=True)})
    assert (ours.dtype, ours.shape, ours.nested is not None) == (dtype, shape, nested)
    assert torch.equal(nf4.dequantize(ours, dtype), unpacked_as_one_row(packed, state))


@pytest.mark.parametrize("nested", [False, True])
def test_their_layer_loads_ours(nested: bool) -> None:
    ours = Nf4Linear.from_linear(nn.Linear(128, 96), nested=nested)
    state = {k.removeprefix("weight."): v for k, v in ours.state_dict().items()}
    packed = state.pop("weight")
    theirs = bnb.nn.Linear4bit(128, 96, quant_type="nf4", compute_dtype=torch.float32)
    theirs.bias = nn.Parameter(state.pop("bias"))
    theirs.weight = bnb.nn.Params4bit.from_prequantized(packed, state, device="cpu", module=theirs)
    x = torch.randn(4, 128)
    # Training mode: an eval call repacks the weight into another layout on some processors.
    torch.testing.assert_close(theirs.train()(x), ours(x))
    unpacked = functional.dequantize_4bit(theirs.weight.data, theirs.weight.quant_state)
    assert torch.equal(unpacked, ours.dense(torch.float32))


@pytest.mark.parametrize("nested", [False, True])
def test_our_layer_loads_theirs(nested: bool) -> None:
    linear = nn.Linear(128, 96)
    theirs = bnb.nn.Linear4bit(
        128, 96, quant_type="nf4", compute_dtype=torch.float32, compress_statistics=nested
    )
    theirs.load_state_dict(linear.state_dict())
    theirs = theirs.to("cpu")
    ours = Nf4Linear.blank(linear)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 128)
    torch.testing.assert_close(ours(x), theirs.train()(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_eight_bit_bytes_are_the_same(dtype: torch.dtype) -> None:
    weight = (torch.randn(96, 128) * 0.05).to(dtype)
    codes, scales, _ = functional.int8_vectorwise_quant(weight.half())
    ours = int8.quantize(weight)
    assert torch.equal(ours.codes, codes)
    assert torch.equal(ours.absmax, scales)


def test_eight_bit_float32_weights_differ_by_one_step_at_most() -> None:
    weight = torch.randn(96, 128) * 0.05
    codes, scales, _ = functional.int8_vectorwise_quant(weight.half())
    ours = int8.quantize(weight)
    assert (ours.codes.int() - codes.int()).abs().max() <= 1
    torch.testing.assert_close(ours.absmax, scales, rtol=2**-11, atol=0)


def their_eight_bit(linear: nn.Linear):
    theirs = bnb.nn.Linear8bitLt(
        linear.in_features, linear.out_features, has_fp16_weights=False, threshold=0.0
    )
    theirs.load_state_dict(linear.state_dict())
    return theirs.to("cpu")


def test_our_eight_bit_layer_loads_theirs() -> None:
    linear = nn.Linear(128, 96)
    theirs = their_eight_bit(linear)
    ours = Int8Linear.blank(linear)
    ours.load_state_dict(theirs.state_dict())
    expected = int8.dequantize(
        int8.Int8Weight(codes=theirs.weight.data, absmax=theirs.weight.SCB), torch.float32
    )
    assert torch.equal(ours.dense(torch.float32), expected)


def test_their_eight_bit_layer_loads_ours() -> None:
    linear = nn.Linear(128, 96)
    ours = Int8Linear.from_linear(linear)
    theirs = their_eight_bit(nn.Linear(128, 96))
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(theirs.weight.data, ours.codes)
    assert torch.equal(theirs.weight.SCB, ours.absmax)
