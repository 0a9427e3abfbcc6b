"""Swapping layers in a model, loading what was swapped, counting bytes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fastvla_core.errors import QuantError
from fastvla_core.quant import (
    Int8Linear,
    Nf4Linear,
    memory_bytes,
    prepare_for_state,
    quantize_module,
    quantized_layers,
)


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 128)
        self.blocks = nn.ModuleList([nn.Linear(128, 128), nn.Linear(128, 384)])
        self.attention = nn.MultiheadAttention(128, 4, batch_first=True)
        self.norm = nn.LayerNorm(384)
        self.head = nn.Linear(384, 7)
        self.tied = nn.Linear(128, 20, bias=False)
        self.tied.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.blocks[0](self.embed(tokens))
        x = self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.norm(self.blocks[1](x)))


@pytest.mark.parametrize(("mode", "kind"), [("nf4", Nf4Linear), ("int8", Int8Linear)])
def test_plain_linear_layers_are_swapped_and_others_left(mode, kind: type[nn.Module]) -> None:
    policy = Policy().eval()
    tokens = torch.arange(6)[None]
    before = policy(tokens)
    assert quantize_module(policy, mode, skip=["head"]) is policy
    assert set(quantized_layers(policy)) == {"blocks.0", "blocks.1"}
    assert isinstance(policy.blocks[0], kind)
    assert policy.tied.weight is policy.embed.weight
    assert not policy.blocks[0].training
    cosine = torch.cosine_similarity(policy(tokens).flatten(), before.flatten(), dim=0)
    assert cosine > 0.98


def test_patterns_are_matched_with_dotted_names() -> None:
    policy = quantize_module(Policy(), "nf4", skip=["blocks.*", "nothing.like.this"])
    assert set(quantized_layers(policy)) == {"head"}


def test_transformer_layers_that_read_weights_directly_keep_working() -> None:
    model = nn.Sequential(
        nn.Linear(16, 16), nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    ).eval()
    quantize_module(model, "nf4")
    assert set(quantized_layers(model)) == {"0"}
    with torch.inference_mode():
        assert model(torch.randn(1, 4, 16)).isfinite().all()


@pytest.mark.parametrize("mode", ["nf4", "int8"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_saved_model_loads_into_a_fresh_one(mode, nested: bool) -> None:
    policy = quantize_module(Policy(), mode, skip=["head"], nested=nested).eval()
    state = policy.state_dict()
    fresh = prepare_for_state(Policy(), state).eval()
    fresh.load_state_dict(state)
    tokens = torch.arange(6)[None]
    assert torch.equal(fresh(tokens), policy(tokens))
    assert set(quantized_layers(fresh)) == set(quantized_layers(policy))


def test_a_full_precision_state_leaves_the_model_alone() -> None:
    assert not quantized_layers(prepare_for_state(Policy(), Policy().state_dict()))


def test_a_quantised_weight_without_its_layer_is_named() -> None:
    with pytest.raises(QuantError, match=r"tower\.fc"):
        prepare_for_state(Policy(), ["tower.fc.weight.quant_state.bitsandbytes__nf4"])


def test_bytes_count_shared_memory_once() -> None:
    policy = Policy()
    distinct = {id(p): p for p in policy.parameters()}.values()
    assert memory_bytes(policy) == 4 * sum(p.numel() for p in distinct)
    with torch.device("meta"):
        assert memory_bytes(nn.Linear(8, 4)) == 4 * (8 * 4 + 4)


@pytest.mark.parametrize(("mode", "bits"), [("nf4", 4.5), ("int8", 8.25)])
def test_a_weight_takes_the_bits_it_should(mode, bits: float) -> None:
    model = nn.Sequential(nn.Linear(128, 384, bias=False))
    assert memory_bytes(quantize_module(model, mode)) * 8 == 128 * 384 * bits


def test_nothing_to_quantise_is_an_error() -> None:
    with pytest.raises(QuantError, match="no linear layer"):
        quantize_module(Policy(), "nf4", skip=["*"])


def test_an_unknown_mode_is_an_error() -> None:
    with pytest.raises(QuantError, match=r"fp4.*\n.*nf4, int8"):
        quantize_module(Policy(), "fp4")  # type: ignore[arg-type]


def test_a_damaged_layer_is_named() -> None:
    policy = Policy()
    with torch.no_grad():
        policy.blocks[1].weight[0, 0] = float("nan")
    with pytest.raises(QuantError, match=r"blocks\.1"):
        quantize_module(policy, "nf4")
