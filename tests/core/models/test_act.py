"""ACT's parts against torch's own, and its loss against its definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastvla_core.models.backbones.resnet import ResNetSize
from fastvla_core.models.lerobot.binding import Binding
from fastvla_core.models.lerobot.features import Features
from fastvla_core.models.policies.act.config import ActConfig
from fastvla_core.models.policies.act.layers import DecoderLayer, EncoderLayer, MultiHeadAttention
from fastvla_core.models.policies.act.model import Act, divergence_from_normal
from fastvla_core.models.policies.act.positions import map_positions, sequence_positions

WIDTH, HEADS, STEPS = 32, 4, 6


def config(**changes: Any) -> ActConfig:
    key = "observation.images.top"
    names = tuple(f"joint{i}" for i in range(3))
    fields: dict[str, Any] = {
        "raw": {"type": "act"},
        "features": Features(
            cameras=(key,), image_sizes={key: (32, 40)}, state_dim=3, action_dim=3
        ),
        "binding": Binding(
            cameras={"top": "top"}, optional_cameras=(), state_names=names, action_names=names
        ),
        "backbone": ResNetSize(block="basic", widths=(16,) * 4, blocks=(1,) * 4),
        "chunk_size": STEPS,
        "n_action_steps": STEPS,
        "normalization_mapping": {},
        "dim_model": WIDTH,
        "n_heads": HEADS,
        "dim_feedforward": 48,
        "n_encoder_layers": 1,
        "n_vae_encoder_layers": 1,
        "latent_dim": 5,
        "dropout": 0.0,
    }
    return ActConfig(**{**fields, **changes})


def batch(rows: int = 2, *, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image_0": torch.randn(rows, 3, 32, 40, generator=generator),
        "state": torch.randn(rows, 3, generator=generator),
        "action": torch.randn(rows, STEPS, 3, generator=generator),
    }


def _give(attention: MultiHeadAttention, torchs: nn.MultiheadAttention) -> None:
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    torchs.in_proj_weight.data = torch.cat([p.weight for p in parts])
    torchs.in_proj_bias.data = torch.cat([p.bias for p in parts])
    torchs.out_proj.load_state_dict(attention.o_proj.state_dict())


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_an_encoder_layer_without_positions_is_torch_s(pre_norm: bool, activation: Any):
    sizes = config(pre_norm=pre_norm, feedforward_activation=activation)
    ours = EncoderLayer(sizes)
    theirs = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 48, 0.0, activation, batch_first=True, norm_first=pre_norm
    )
    _give(ours.self_attn, theirs.self_attn)
    for own, other in (
        (ours.mlp.up_proj, theirs.linear1),
        (ours.mlp.down_proj, theirs.linear2),
        (ours.attention_residual.norm, theirs.norm1),
        (ours.mlp_residual.norm, theirs.norm2),
    ):
        own.bias.data.normal_()
        other.load_state_dict(own.state_dict())
    x, hidden = torch.randn(2, 7, WIDTH), torch.zeros(2, 7, dtype=torch.bool)
    hidden[0, 5:] = True
    found = ours(x, torch.zeros(1, 7, WIDTH), ~hidden[:, None, None])
    expected = theirs.train()(x, src_key_padding_mask=hidden)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_a_decoder_layer_without_positions_is_torch_s(pre_norm: bool):
    ours = DecoderLayer(config(pre_norm=pre_norm))
    theirs = nn.TransformerDecoderLayer(
        WIDTH, HEADS, 48, 0.0, batch_first=True, norm_first=pre_norm
    )
    _give(ours.self_attn, theirs.self_attn)
    _give(ours.cross_attn, theirs.multihead_attn)
    for own, other in (
        (ours.mlp.up_proj, theirs.linear1),
        (ours.mlp.down_proj, theirs.linear2),
        (ours.attention_residual.norm, theirs.norm1),
        (ours.cross_residual.norm, theirs.norm2),
        (ours.mlp_residual.norm, theirs.norm3),
    ):
        own.bias.data.normal_()
        other.load_state_dict(own.state_dict())
    x, memory = torch.randn(2, 4, WIDTH), torch.randn(2, 7, WIDTH)
    none = torch.zeros(1, 1, WIDTH)
    torch.testing.assert_close(ours(x, none, memory, none), theirs(x, memory), atol=1e-5, rtol=1e-5)


def test_positions_go_to_queries_and_keys_and_never_to_values():
    layer = EncoderLayer(config())
    x, places = torch.randn(1, 4, WIDTH), torch.randn(1, 4, WIDTH)
    layer.self_attn.q_proj.weight.data.zero_()
    layer.self_attn.q_proj.bias.data.zero_()
    # Queries that ask nothing look everywhere alike: where keys are cannot show.
    torch.testing.assert_close(layer(x, places), layer(x, torch.zeros_like(places)))
    fresh = EncoderLayer(config())
    assert (fresh(x, places) - fresh(x, torch.zeros_like(places))).abs().max() > 1e-3


def test_positions_of_a_sequence_are_the_paper_s():
    found = sequence_positions(9, 8)
    for place, channel in ((0, 0), (3, 2), (8, 5)):
        angle = place / 10_000 ** (2 * (channel // 2) / 8)
        value = torch.tensor(angle).sin() if channel % 2 == 0 else torch.tensor(angle).cos()
        torch.testing.assert_close(found[0, place, channel], value)


def test_every_cell_of_a_map_has_a_place_of_its_own_and_rows_share_half_of_it():
    found = map_positions(3, 4, channels=16, device=torch.device("cpu"))[0].unflatten(0, (3, 4))
    flat = found.flatten(0, 1)
    distance = torch.cdist(flat, flat) + torch.eye(12)
    assert distance.min() > 0.1
    assert torch.equal(found[1, 0, :8], found[1, 3, :8])
    assert torch.equal(found[0, 2, 8:], found[2, 2, 8:])


def test_the_divergence_is_torch_s():
    mean, log_variance = torch.randn(4, 5), torch.randn(4, 5)
    normal = torch.distributions.Normal
    each = torch.distributions.kl_divergence(
        normal(mean, (log_variance / 2).exp()), normal(torch.zeros(5), torch.ones(5))
    )
    torch.testing.assert_close(divergence_from_normal(mean, log_variance), each.sum(-1).mean())


def test_in_use_nothing_is_random_and_the_encoder_of_the_latent_is_not_asked():
    torch.manual_seed(0)
    model = Act(config()).eval()
    found = model(batch(), torch.empty(0))
    assert found.shape == (2, STEPS, 3)
    assert model.latent is not None
    for parameter in model.latent.parameters():
        parameter.data.fill_(torch.nan)
    assert torch.equal(model(batch(), torch.empty(0)), found)


def test_padding_counts_neither_in_the_error_nor_for_the_latent():
    torch.manual_seed(0)
    model = Act(config()).eval()
    full = batch()
    full["action_is_pad"] = torch.zeros(2, STEPS, dtype=torch.bool)
    full["action_is_pad"][1, -2:] = True
    noise = torch.randn(2, 5)
    before = model.losses(full, noise)
    full["action"][1, -2:] += 100.0
    after = model.losses(full, noise)
    assert torch.equal(before["loss"], after["loss"])
    del full["action_is_pad"]
    assert model.losses(full, noise)["loss"] > 2 * before["loss"]


@pytest.mark.parametrize("use_vae", [True, False])
def test_the_loss_reaches_every_weight_and_falls(use_vae: bool):
    torch.manual_seed(0)
    model = Act(config(use_vae=use_vae, kl_weight=0.1)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        result = model.loss(batch(), generator=torch.Generator().manual_seed(1))
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        losses.append(result["loss"].item())
    # The summary token's own query aside, everything is used.
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert losses[-1] < 0.8 * losses[0]
    assert result["loss_per_dim"].shape == (3,)


def test_dropout_follows_the_generator_and_leaves_torch_s_own_alone():
    torch.manual_seed(0)
    model = Act(config(dropout=0.3)).train()

    def loss(seed: int) -> float:
        return model.loss(batch(), generator=torch.Generator().manual_seed(seed))["loss"].item()

    torch.manual_seed(7)
    first = loss(1)
    drawn = torch.rand(3)
    assert loss(1) == first != loss(2)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), drawn)
