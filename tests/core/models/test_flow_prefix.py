"""Chunks that continue a plan: guided without training, and trained for it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastvla_core.errors import CheckpointError, PolicyError
from fastvla_core.models.flow_prefix import (
    FlowPrefix,
    continuing,
    draw_delays,
    guidance_weight,
    inpainting,
    prefix_weights,
)
from fastvla_core.models.policies.flow_vla import flow
from fastvla_core.models.policies.flow_vla.model import FlowVLA
from fastvla_core.policy import FastVLA
from fastvla_core.types import ChunkPrefix, Conditioning

from .tiny import NAMES, model_batch, observation, tiny_config, tiny_policy

ROWS, DIMENSIONS = 6, 3


def weights(frozen: int, planned: int) -> Tensor:
    return prefix_weights(torch.tensor([frozen]), torch.tensor([planned]), rows=ROWS)[0]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_weights_are_one_then_fall_then_zero():
    c = torch.tensor([3 / 4, 2 / 4, 1 / 4])
    expected = torch.cat([torch.ones(2), c * torch.expm1(c) / (math.e - 1), torch.zeros(1)])
    torch.testing.assert_close(weights(2, 5), expected)


@given(st.integers(0, ROWS), st.integers(0, ROWS))
def test_weights_never_rise_and_stay_between_zero_and_one(frozen: int, planned: int):
    found = weights(min(frozen, planned), planned)
    assert (found.diff() <= 0).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert int((found == 1).sum()) == min(frozen, planned)
    assert int((found > 0).sum()) == planned


def test_guidance_is_the_paper_s_and_bounded():
    # At s = 0.4: r^2 = 0.36 / 0.52, and (1 - s) / (s r^2) = 0.6 / 0.4 * 0.52 / 0.36.
    assert guidance_weight(0.6) == pytest.approx(0.6 / 0.4 * 0.52 / 0.36)
    assert guidance_weight(1.0) == guidance_weight(0.0) == 5.0
    assert guidance_weight(0.999) == 5.0


class GaussianFlow:
    """The exact velocity of a flow to independent Gaussians; counts how often it is asked."""

    def __init__(self, mean_bta: Tensor, *, std: float) -> None:
        self._mean, self._variance = mean_bta, std**2

    def __call__(self, x_bta: Tensor, time: float | Tensor) -> Tensor:
        t = torch.as_tensor(time, dtype=torch.float32)
        t = t[..., None] if t.ndim else t
        total = (1 - t) ** 2 * self._variance + t**2
        centred = x_bta - (1 - t) * self._mean
        data = self._mean + (1 - t) * self._variance / total * centred
        noise = t / total * centred
        return noise - data


def inpainted(velocity: Any, plan: Tensor, *, frozen: int, planned: int, steps: int) -> Tensor:
    row = prefix_weights(torch.tensor([frozen]), torch.tensor([planned]), rows=ROWS)
    guided = inpainting(velocity, actions_bta=plan, weights_bt=row)
    return flow.integrate(guided, random(1, ROWS, DIMENSIONS, seed=4), steps=steps)


@pytest.mark.parametrize("steps", [5, 10, 50])
def test_inpainting_meets_frozen_rows_nearly_and_leaves_free_rows_alone(steps: int):
    velocity = GaussianFlow(random(1, ROWS, DIMENSIONS), std=1.0)
    plan = random(1, ROWS, DIMENSIONS, seed=2)
    found = inpainted(velocity, plan, frozen=2, planned=4, steps=steps)
    plain = flow.integrate(velocity, random(1, ROWS, DIMENSIONS, seed=4), steps=steps)
    before, after = (plain - plan).abs(), (found - plan).abs()
    assert after[:, :2].mean() < 0.25 * before[:, :2].mean()
    assert after[:, 2:4].mean() < before[:, 2:4].mean()
    torch.testing.assert_close(found[:, 4:], plain[:, 4:])


def test_guidance_goes_back_through_the_network():
    """A network that couples rows: pulling the first moves the others with it."""
    mix = torch.full((ROWS, ROWS), 0.15) + 0.4 * torch.eye(ROWS)

    def velocity(x_bta: Tensor, time: float | Tensor) -> Tensor:
        return x_bta - torch.einsum("ij,bja->bia", mix, x_bta)

    plan = 3 + torch.zeros(1, ROWS, DIMENSIONS)
    found = inpainted(velocity, plan, frozen=1, planned=1, steps=5)
    plain = flow.integrate(velocity, random(1, ROWS, DIMENSIONS, seed=4), steps=5)
    assert ((found - plain)[:, 1:] > 0.1).all()


def test_without_weights_guidance_changes_nothing():
    velocity = GaussianFlow(random(1, ROWS, DIMENSIONS), std=0.5)
    found = inpainted(velocity, 1e3 * torch.ones(1, ROWS, DIMENSIONS), frozen=0, planned=0, steps=5)
    plain = flow.integrate(velocity, random(1, ROWS, DIMENSIONS, seed=4), steps=5)
    torch.testing.assert_close(found, plain, atol=1e-6, rtol=0)


def test_continuing_gives_frozen_rows_as_data_and_ends_in_them():
    seen: list[tuple[Tensor, Tensor]] = []
    plan = random(1, ROWS, DIMENSIONS, seed=2)
    frozen = torch.arange(ROWS)[None] < 2

    def velocity(x_bta: Tensor, time: float | Tensor) -> Tensor:
        assert isinstance(time, Tensor)
        seen.append((x_bta, time))
        return torch.ones_like(x_bta)

    noise = random(1, ROWS, DIMENSIONS, seed=4)
    found = flow.integrate(continuing(velocity, actions_bta=plan, frozen_bt=frozen), noise, steps=5)
    torch.testing.assert_close(found[:, :2], plan[:, :2])
    torch.testing.assert_close(found[:, 2:], noise[:, 2:] - 1)
    for step, (x, time) in enumerate(seen):
        assert torch.equal(x[:, :2], plan[:, :2])
        expected = torch.tensor([[0.0] * 2 + [1 - step / 5] * 4], dtype=torch.float64)
        torch.testing.assert_close(time, expected)


# -- a policy --------------------------------------------------------------------------------------


def plan_for(policy: Any, *, rows: int, frozen: int, conditioning: Conditioning = "inpaint"):
    chunk = policy.infer(observation(7))
    return ChunkPrefix(
        names=NAMES, positions=chunk.positions[:rows], frozen=frozen, conditioning=conditioning
    )


def test_a_policy_continues_a_plan_and_chunks_without_one_stay_as_they_are():
    policy = tiny_policy(num_inference_steps=5)
    prefix = plan_for(policy, rows=3, frozen=2)
    free = policy.infer(observation(1)).positions
    mixed = policy.infer_batch([observation(0), observation(1)], prefixes=[prefix, None])
    told = mixed[0].positions
    before = np.abs(policy.infer(observation(0)).positions - prefix.positions[[0, 1, 2, 2]])
    after = np.abs(told - prefix.positions[[0, 1, 2, 2]])
    assert after[:2].mean() < 0.3 * before[:2].mean()
    np.testing.assert_allclose(mixed[1].positions, free, atol=1e-5)


def test_columns_of_a_prefix_go_by_name():
    policy = tiny_policy()
    prefix = plan_for(policy, rows=3, frozen=2)
    turned = ChunkPrefix(
        names=NAMES[::-1],
        positions=prefix.positions[:, ::-1].copy(),
        frozen=2,
        conditioning="inpaint",
    )
    expected = policy.infer(observation(0), prefix=prefix).positions
    np.testing.assert_array_equal(policy.infer(observation(0), prefix=turned).positions, expected)


def test_the_plan_is_expressed_in_the_frame_of_the_new_observation():
    policy = tiny_policy()
    prefix = plan_for(policy, rows=3, frozen=2)
    for index in (0, 1):
        seen = observation(index)
        tensors = policy.processor.flow_prefix([prefix], [seen], device=policy.device)
        back = policy.processor.targets(tensors.actions_bta, [seen])[0]
        np.testing.assert_allclose(back[:3], prefix.positions, atol=1e-6)
        np.testing.assert_allclose(back[3], prefix.positions[2], atol=1e-6)
        assert (int(tensors.frozen_b), int(tensors.planned_b)) == (2, 3)


def test_a_policy_trained_for_it_ends_exactly_in_the_frozen_rows():
    policy = tiny_policy(max_prefix_steps=2)
    prefix = plan_for(policy, rows=3, frozen=2, conditioning="trained")
    told = policy.infer(observation(0), prefix=prefix).positions
    np.testing.assert_allclose(told[:2], prefix.positions[:2], atol=1e-5)
    assert np.abs(told[2] - prefix.positions[2]).max() > 1e-3
    other = ChunkPrefix(
        names=NAMES, positions=prefix.positions + 0.5, frozen=2, conditioning="trained"
    )
    assert np.abs(policy.infer(observation(0), prefix=other).positions - told)[2:].max() > 1e-4


def test_more_frozen_rows_than_were_trained_for_are_not_given():
    policy = tiny_policy(max_prefix_steps=1)
    prefix = plan_for(policy, rows=3, frozen=3, conditioning="trained")
    told = policy.infer(observation(0), prefix=prefix).positions
    np.testing.assert_allclose(told[0], prefix.positions[0], atol=1e-5)
    assert np.abs(told[1] - prefix.positions[1]).max() > 1e-3


def test_a_policy_that_was_not_trained_for_it_refuses():
    policy = tiny_policy()
    prefix = plan_for(policy, rows=3, frozen=2, conditioning="trained")
    with pytest.raises(PolicyError, match="cannot continue a plan by 'trained'") as caught:
        policy.infer(observation(0), prefix=prefix)
    assert "max_prefix_steps" in caught.value.mend


@pytest.mark.parametrize("steps", [-1, 4])
def test_a_config_must_leave_a_step_to_infer(steps: int):
    with pytest.raises(CheckpointError, match="max_prefix_steps"):
        tiny_config(max_prefix_steps=steps)


@pytest.mark.parametrize(
    "changes",
    [
        {"positions": np.zeros((0, 3)), "frozen": 0},
        {"positions": np.zeros((2, 2)), "frozen": 0},
        {"positions": np.full((2, 3), np.nan), "frozen": 0},
        {"frozen": 3},
        {"frozen": -1},
    ],
)
def test_a_prefix_that_cannot_be_is_refused(changes: dict[str, Any]):
    fields = {"positions": np.zeros((2, 3)), "frozen": 1, **changes}
    with pytest.raises(PolicyError, match="chunk prefix"):
        ChunkPrefix(names=NAMES, conditioning="inpaint", **fields)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_policy_is_guided_too(tmp_path: Path, quantization: Any):
    tiny_policy(num_inference_steps=5).save_pretrained(tmp_path)
    policy = FastVLA.from_pretrained(tmp_path, quantization=quantization)
    prefix = plan_for(policy, rows=3, frozen=3)
    free = np.abs(policy.infer(observation(0)).positions[:3] - prefix.positions)
    told = np.abs(policy.infer(observation(0), prefix=prefix).positions[:3] - prefix.positions)
    assert policy.quantization == quantization
    assert told.mean() < 0.3 * free.mean()


# -- training --------------------------------------------------------------------------------------


def test_delays_are_even_and_bounded():
    delays = draw_delays(30_000, longest=3, generator=torch.Generator().manual_seed(0))
    shares = torch.bincount(delays) / len(delays)
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.01, rtol=0)


def _loss(model: FlowVLA, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return model.loss(batch, generator=torch.Generator().manual_seed(1))


def test_the_loss_counts_only_what_comes_after_the_delay():
    torch.manual_seed(0)
    model = FlowVLA(tiny_config(max_prefix_steps=3)).eval()
    batch = model_batch(model.config, rows=3)
    result = _loss(model, batch)
    generator = torch.Generator().manual_seed(1)
    time = flow.sample_time((3, 4), generator=generator)
    noise = torch.randn(3, 4, 4, 3, generator=generator)
    delay = draw_delays(3, longest=3, generator=generator)
    assert len(set(delay.tolist())) > 1
    given = (torch.arange(4) < delay[:, None])[:, None]
    time = torch.where(given, 0.0, time[..., None])
    action = batch["action"][:, None]
    noisy = time[..., None] * noise + (1 - time[..., None]) * action
    assert torch.equal(noisy[given.expand(3, 4, 4)], action.expand_as(noisy)[given.expand(3, 4, 4)])
    error = (model.expert(noisy, time, model.prefix(batch)) - (noise - action)).square()
    expected = error[~given.expand(3, 4, 4)].mean()
    torch.testing.assert_close(result["loss"], expected)


def test_actions_that_are_given_get_no_gradient_of_their_own():
    """Whatever the network says for given rows, the loss is the same."""
    torch.manual_seed(0)
    model = FlowVLA(tiny_config(max_prefix_steps=3)).eval()
    batch = model_batch(model.config, rows=3)
    expert, before = model.expert.forward, None
    for shift in (0.0, 100.0):

        def disturbed(noisy: Tensor, time: Tensor, prefix: Any, by: float = shift) -> Tensor:
            return expert(noisy, time, prefix) + by * (time == 0)[..., None]

        model.expert.forward = disturbed
        loss = _loss(model, batch)["loss"]
        assert before is None or torch.equal(loss, before)
        before = loss


def test_without_delays_the_same_numbers_are_drawn_as_ever():
    torch.manual_seed(0)
    model = FlowVLA(tiny_config()).eval()
    batch, generator = model_batch(model.config), torch.Generator().manual_seed(1)
    model.loss(batch, generator=generator)
    again = torch.Generator().manual_seed(1)
    flow.sample_time((2, 4), generator=again)
    torch.randn(2, 4, 4, 3, generator=again)
    assert torch.equal(generator.get_state(), again.get_state())


def test_flow_prefixes_of_one_batch_may_differ():
    actions = random(2, ROWS, DIMENSIONS, seed=2)
    prefix = FlowPrefix(
        actions_bta=actions,
        frozen_b=torch.tensor([1, 0]),
        planned_b=torch.tensor([3, 0]),
        conditioning="inpaint",
    )
    velocity = GaussianFlow(torch.zeros(2, ROWS, DIMENSIONS), std=1.0)
    noise = random(2, ROWS, DIMENSIONS, seed=4)
    found = flow.integrate(prefix.conditioned(velocity), noise, steps=5)
    plain = flow.integrate(velocity, noise, steps=5)
    torch.testing.assert_close(found[1], plain[1])
    assert (found[0, 0] - actions[0, 0]).abs().max() < 0.3 * (
        plain[0, 0] - actions[0, 0]
    ).abs().max()
