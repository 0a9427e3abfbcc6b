from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastvla_core.models.policies.flow_vla import flow
from fastvla_core.models.policies.flow_vla.model import FlowVLA, Prefix
from fastvla_core.models.policies.flow_vla.presets import large_config, nano_config

from .tiny import model_batch, tiny_config, vit_vision

VISIONS = [{}, {"vision": vit_vision()}, {"image_points": 3}]


def _model(**others: Any) -> FlowVLA:
    torch.manual_seed(0)
    return FlowVLA(tiny_config(**others)).eval()


def _noise(model: FlowVLA, rows: int = 2) -> Tensor:
    shape = (rows, model.config.chunk_size, len(model.config.action_names))
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def _act(model: FlowVLA, batch: dict[str, Tensor]) -> Tensor:
    with torch.inference_mode():
        return model(batch, _noise(model, len(batch["state"])))


@pytest.mark.parametrize("others", VISIONS)
def test_actions_depend_on_images_instruction_state_and_noise(others: dict[str, Any]):
    model = _model(**others)
    batch = model_batch(model.config)
    actions = _act(model, batch)
    assert actions.shape == (2, 4, 3)
    assert actions.dtype is torch.float32
    for key in ("images", "tokens", "state"):
        changed = {**batch, key: model_batch(model.config, seed=9)[key]}
        assert (_act(model, changed) - actions).abs().max() > 1e-5, key
    with torch.inference_mode():
        assert (model(batch, _noise(model) + 1) - actions).abs().max() > 1e-3


@pytest.mark.parametrize("others", VISIONS)
def test_pixels_of_a_missing_camera_change_nothing(others: dict[str, Any]):
    model = _model(**others)
    batch = model_batch(model.config)
    whole = _act(model, batch)
    batch["image_mask"] = torch.tensor([[True, False], [True, True]])
    before = _act(model, batch)
    batch["images"] = batch["images"].clone()
    batch["images"][0, 1] *= -1
    assert torch.equal(_act(model, batch), before)
    assert (before[0] - whole[0]).abs().max() > 1e-5
    torch.testing.assert_close(before[1], whole[1])


def test_padding_tokens_change_nothing():
    model = _model()
    batch = model_batch(model.config)
    before = _act(model, batch)
    batch["tokens"] = batch["tokens"].where(batch["token_mask"], torch.tensor(7))
    assert torch.equal(_act(model, batch), before)


@pytest.mark.parametrize("others", VISIONS)
def test_hidden_cameras_are_not_read_in_training_and_the_loss_is_the_same(others: dict[str, Any]):
    model = _model(**others)
    batch = model_batch(model.config)
    batch["image_mask"] = torch.tensor([[True, False], [False, True]])
    batch["action"] = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(8))
    losses = [
        model.train(mode).loss(batch, generator=torch.Generator().manual_seed(1))["loss"]
        for mode in (False, True)
    ]
    torch.testing.assert_close(losses[0], losses[1])
    batch["images"][0, 1] = float("nan")  # an image that is read would end in the loss
    loss = model.loss(batch, generator=torch.Generator().manual_seed(1))["loss"]
    torch.testing.assert_close(loss, losses[1])


def test_word_order_matters():
    model = _model()
    batch = model_batch(model.config, rows=1)
    batch["token_mask"][:] = torch.arange(12) < 5
    swapped = {**batch, "tokens": batch["tokens"][:, [0, 3, 2, 1, *range(4, 12)]]}
    assert (_act(model, swapped) - _act(model, batch)).abs().max() > 1e-5


def test_the_instruction_changes_what_the_stem_sees():
    model = _model()
    batch = model_batch(model.config)
    with torch.inference_mode():
        tokens = [
            model.prefix.embed({**batch, "tokens": ids})[0][:, : 2 * 24]
            for ids in (batch["tokens"], batch["tokens"].roll(1, dims=0))
        ]
    assert model.prefix.vision.tokens_per_camera == 24
    assert (tokens[0] - tokens[1]).abs().mean() > 1e-3


def test_cameras_are_told_apart_even_with_shared_weights():
    vision = {**tiny_config().vision, "per_camera_weights": False}
    model = _model(vision=vision)
    batch = model_batch(model.config)
    swapped = {**batch, "images": batch["images"].flip(1)}
    assert len(model.prefix.vision.stems) == 1
    assert (_act(model, swapped) - _act(model, batch)).abs().max() > 1e-6


def test_a_row_does_not_depend_on_the_others_in_its_batch():
    model = _model()
    batch = model_batch(model.config, rows=3)
    together = _act(model, batch)
    with torch.inference_mode():
        alone = model({k: v[1:2] for k, v in batch.items()}, _noise(model, 3)[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)


def _recomputed_velocity(model: FlowVLA, batch: dict[str, Tensor], noisy: Tensor, time: float):
    """One pass over [prefix, actions] at once, with a block mask in place of a cache."""
    prefix, expert = model.prefix, model.expert
    x, mask = prefix.embed(batch)
    a = expert.embed(noisy[:, None], torch.full((len(noisy), 1, 1), time))
    p, t = x.shape[1], a.shape[1]
    allowed = torch.zeros(len(x), 1, p + t, p + t, dtype=torch.bool)
    allowed[:, :, :, :p] = mask[:, None, None]
    allowed[:, :, p:, p:] = True
    from fastvla_core.layers.attention import attend
    from fastvla_core.layers.rope import rope_table

    rope_p = rope_table(torch.arange(p), head_dim=8)
    rope_a = rope_table(torch.arange(p, p + t), head_dim=8)
    prefix_layers = [*prefix.layers, prefix.last_layer]
    for own, other in zip(prefix_layers, expert.layers, strict=True):
        memory = own.self_attn.key_value(own.input_norm(x), rope_p).then(
            other.self_attn.key_value(other.input_norm(a), rope_a)
        )
        query_a = other.self_attn.q_proj(other.input_norm(a)).unflatten(-1, (4, 8)).transpose(1, 2)
        seen = allowed[:, :, p:]
        if own is not prefix.last_layer:
            query_x = own.self_attn.q_proj(own.input_norm(x)).unflatten(-1, (4, 8)).transpose(1, 2)
            mixed = attend(
                torch.cat([rope_p.rotate(query_x), rope_a.rotate(query_a)], dim=2), memory, allowed
            )
            x = x + own.self_attn.o_proj(mixed[:, :, :p].transpose(1, 2).flatten(2))
            x = x + own.mlp(own.mlp_norm(x))
            mixed = mixed[:, :, p:]
        else:
            mixed = attend(rope_a.rotate(query_a), memory, seen)
        a = a + other.self_attn.o_proj(mixed.transpose(1, 2).flatten(2))
        a = a + other.mlp(other.mlp_norm(a))
    return expert.action_out(expert.final_norm(a))


def test_the_cached_prefix_gives_what_full_attention_gives():
    model = _model()
    batch = model_batch(model.config)
    batch["image_mask"][0, 1] = False
    noisy = _noise(model)
    with torch.inference_mode():
        expected = _recomputed_velocity(model, batch, noisy, 0.6)
        times = torch.full((2, 1, 1), 0.6)
        found = model.expert(noisy[:, None], times, model.prefix(batch))[:, 0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_prefix_is_read_once_per_inference():
    model = _model()
    calls: list[int] = []
    model.prefix.register_forward_hook(lambda *_: calls.append(1))
    _act(model, model_batch(model.config))
    assert len(calls) == 1


def test_flow_samples_of_one_prefix_do_not_see_each_other():
    model = _model()
    batch = model_batch(model.config)
    noisy = torch.randn(2, 3, 4, 3)
    times = torch.tensor([[[0.2], [0.5], [0.9]]]).expand(2, 3, 1)
    with torch.inference_mode():
        prefix = model.prefix(batch)
        together = model.expert(noisy, times, prefix)
        for sample in range(3):
            alone = model.expert(noisy[:, sample, None], times[:, sample, None], prefix)
            torch.testing.assert_close(together[:, sample, None], alone, atol=1e-5, rtol=1e-5)


def test_action_steps_see_each_other_both_ways():
    model = _model()
    batch, noisy = model_batch(model.config), _noise(model)[:, None]
    times = torch.full((2, 1, 1), 0.5)
    with torch.inference_mode():
        prefix: Prefix = model.prefix(batch)
        before = model.expert(noisy, times, prefix)
        for changed, other in ((0, 3), (3, 0)):
            moved = noisy.clone()
            moved[:, :, changed] += 1
            after = model.expert(moved, times, prefix)
            assert (after - before)[:, :, other].abs().max() > 1e-6


def test_loss_is_the_error_of_the_velocity():
    model = _model()
    batch = model_batch(model.config)
    result = model.loss(batch, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    time = flow.sample_time((2, 4), generator=generator)
    noise = torch.randn(2, 4, 4, 3, generator=generator)
    action = batch["action"][:, None]
    noisy = time[..., None, None] * noise + (1 - time[..., None, None]) * action
    velocity = model.expert(noisy, time[..., None], model.prefix(batch))
    expected = (velocity - (noise - action)).square().mean(dim=(0, 1, 2))
    torch.testing.assert_close(result["loss_per_dim"], expected.detach())
    torch.testing.assert_close(result["loss"], expected.mean())


def test_loss_reaches_every_weight():
    model = _model()
    model.loss(model_batch(model.config), generator=torch.Generator().manual_seed(1))[
        "loss"
    ].backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_a_row_without_pixels_of_one_camera_has_a_finite_gradient():
    model = _model()
    batch = model_batch(model.config)
    batch["image_mask"][:] = torch.tensor([[False, True], [True, False]])
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(batch, generator=torch.Generator().manual_seed(1))["loss"]
    loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_a_few_steps_of_training_lower_the_loss():
    model = _model().train()
    batch = model_batch(model.config, rows=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(60):
        loss = model.loss(batch, generator=torch.Generator().manual_seed(step))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_nano_has_at_most_2_35_million_parameters_and_36_tokens_per_camera():
    names = [f"joint{i}" for i in range(1, 7)] + ["gripper"]
    with torch.device("meta"):
        model = FlowVLA(
            nano_config(cameras=["front", "wrist"], state_names=names, action_names=names)
        )
    assert sum(p.numel() for p in model.parameters()) <= 2_350_000
    assert model.prefix.vision.tokens_per_camera == 36


def test_the_same_classes_scale_to_billions_of_parameters():
    names = [f"joint{i}" for i in range(1, 7)] + ["gripper"]
    with torch.device("meta"):
        model = FlowVLA(large_config(cameras=["a", "b"], state_names=names, action_names=names))
    count = sum(p.numel() for p in model.parameters())
    assert 2.5e9 < count < 4.5e9


@pytest.mark.parametrize("others", VISIONS)
def test_weights_in_bfloat16_give_nearly_the_same_actions(others: dict[str, Any]):
    model = _model(**others)
    batch = model_batch(model.config)
    expected = _act(model, batch)
    found = _act(model.to(torch.bfloat16), batch)
    assert found.dtype is torch.float32
    assert (found - expected).abs().max() < 0.1
