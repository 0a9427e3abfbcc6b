"""Noise schedules against their papers, and the network's parts against what they stand for."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvla_core.models.backbones.resnet import ResNetSize
from fastvla_core.models.lerobot.binding import Binding
from fastvla_core.models.lerobot.features import Features
from fastvla_core.models.policies.diffusion.config import DiffusionConfig
from fastvla_core.models.policies.diffusion.model import Diffusion, make_sampler
from fastvla_core.models.policies.diffusion.schedule import Ddim, Ddpm, signal_shares
from fastvla_core.models.policies.diffusion.unet import UNet, step_embedding
from fastvla_core.models.policies.diffusion.vision import ImageEncoder, SpatialSoftmax

HORIZON = 8


def config(**changes: Any) -> DiffusionConfig:
    key = "observation.images.top"
    names = tuple(f"joint{i}" for i in range(3))
    fields: dict[str, Any] = {
        "raw": {"type": "diffusion"},
        "features": Features(
            cameras=(key,), image_sizes={key: (40, 48)}, state_dim=3, action_dim=3
        ),
        "binding": Binding(
            cameras={"top": "top"}, optional_cameras=(), state_names=names, action_names=names
        ),
        "backbone": ResNetSize(block="basic", widths=(16,) * 4, blocks=(1,) * 4),
        "horizon": HORIZON,
        "chunk_size": HORIZON - 1,
        "n_action_steps": 4,
        "normalization_mapping": {},
        "spatial_softmax_num_keypoints": 4,
        "down_dims": (8, 16),
        "kernel_size": 3,
        "diffusion_step_embed_dim": 8,
        "num_train_timesteps": 20,
        "num_inference_steps": 5,
        "crop_shape": (32, 40),
    }
    return DiffusionConfig(**{**fields, **changes})


def batch(rows: int = 2, *, moments: int = 2, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image_0": torch.randn(rows, moments, 3, 40, 48, generator=generator),
        "state": torch.randn(rows, moments, 3, generator=generator),
        "action": torch.randn(rows, HORIZON, 3, generator=generator).clamp(-1, 1),
    }


# -- schedules -------------------------------------------------------------------------------------


def test_shares_of_the_signal_are_the_papers():
    linear = signal_shares("linear", steps=4, start=0.1, end=0.4)
    torch.testing.assert_close(linear, torch.tensor([0.9, 0.9 * 0.8, 0.504, 0.3024]))
    scaled = signal_shares("scaled_linear", steps=2, start=0.04, end=0.16)
    torch.testing.assert_close(scaled, torch.tensor([0.96, 0.96 * 0.84]))
    cosine = signal_shares("squaredcos_cap_v2", steps=50, start=0.0, end=0.0)
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    at = [math.cos(((t + 1) / 50 + 0.008) / 1.008 * math.pi / 2) ** 2 / start for t in range(49)]
    torch.testing.assert_close(cosine[:49], torch.tensor(at), atol=1e-5, rtol=1e-4)
    assert 0 < cosine[49] < 1e-3


def sampler(kind: Any = Ddpm, **changes: Any) -> Any:
    shares = signal_shares("squaredcos_cap_v2", steps=20, start=0.0, end=0.0)
    fields = {"shares": shares, "steps": 20, "prediction": "epsilon", "limit": None, **changes}
    return kind(**fields)


def test_noised_actions_have_the_variance_that_the_shares_say():
    ddpm, generator = sampler(), torch.Generator().manual_seed(0)
    action, noise = torch.randn(2, 4, 40_000, 1, generator=generator).unbind()
    at = torch.tensor([0, 5, 12, 19])
    noisy = ddpm.noised(action, noise, at)
    torch.testing.assert_close(noisy.var(dim=1)[:, 0], torch.ones(4), atol=0.03, rtol=0)
    kept = (noisy * action).mean(dim=1)[:, 0]
    torch.testing.assert_close(kept, ddpm.shares[at].sqrt(), atol=0.02, rtol=0)


def test_a_ddpm_step_is_the_posterior_of_the_step_before():
    """Equations 6 and 7 of the paper, from betas and alphas as they are written there."""
    ddpm, t = sampler(), 9
    x0, x = torch.randn(2, 1, 3, 2).unbind()
    share, before = ddpm.shares[t], ddpm.shares[t - 1]
    alpha = share / before
    beta = 1 - alpha
    mean = (before.sqrt() * beta * x0 + alpha.sqrt() * (1 - before) * x) / (1 - share)
    std = ((1 - before) / (1 - share) * beta).sqrt()
    noise = (x - share.sqrt() * x0) / (1 - share).sqrt()
    added = [torch.randn(1, 3, 2)] * 20
    index = ddpm.timesteps.index(t)
    found = ddpm.step(noise, x, index=index, added=added)
    torch.testing.assert_close(found, mean + std * added[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [Ddpm, Ddim])
@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
@pytest.mark.parametrize("steps", [20, 6])
def test_who_knows_the_actions_ends_in_them(kind: Any, prediction: Any, steps: int):
    chosen = sampler(kind, prediction=prediction, steps=steps)
    x0 = torch.rand(2, 4, 3) - 0.5
    x, added = torch.randn(steps, 2, 4, 3)[0], list(torch.randn(steps, 2, 4, 3))
    for index, timestep in enumerate(chosen.timesteps):
        share = chosen.shares[timestep]
        output = x0 if prediction == "sample" else (x - share.sqrt() * x0) / (1 - share).sqrt()
        x = chosen.step(output, x, index=index, added=added)
    torch.testing.assert_close(x, x0, atol=1e-4, rtol=1e-4)


def test_ddim_stays_on_the_line_of_one_noise():
    ddim = sampler(Ddim, steps=5)
    x0, noise = torch.rand(1, 3, 2), torch.randn(1, 3, 2)
    at = torch.tensor([ddim.timesteps[1]])
    after = torch.tensor([ddim.timesteps[2]])
    found = ddim.step(noise, ddim.noised(x0, noise, at), index=1, added=[])
    torch.testing.assert_close(found, ddim.noised(x0, noise, after), atol=1e-5, rtol=1e-5)


def test_actions_are_kept_within_their_limit():
    ddim = sampler(Ddim, steps=1, prediction="sample", limit=0.5)
    found = ddim.step(torch.full((1, 2, 1), 3.0), torch.randn(1, 2, 1), index=0, added=[])
    torch.testing.assert_close(found, torch.full((1, 2, 1), 0.5))


def test_denoising_steps_are_spread_evenly_from_the_end():
    assert sampler(steps=5).timesteps == [16, 12, 8, 4, 0]
    assert sampler(steps=6).timesteps == [15, 12, 9, 6, 3, 0]


# -- the network -----------------------------------------------------------------------------------


def test_a_bright_cell_is_found_where_it_is():
    pool = SpatialSoftmax(1, size=(3, 5), points=1)
    pool.features.weight.data.fill_(1.0)
    pool.features.bias.data.zero_()
    image = torch.zeros(1, 1, 3, 5)
    image[0, 0, 2, 1] = 50.0
    torch.testing.assert_close(pool(image), torch.tensor([[[-0.5, 1.0]]]))


def test_the_middle_is_cut_in_use_and_any_place_in_training():
    torch.manual_seed(0)
    encoder = ImageEncoder(config())
    images = torch.randn(1, 3, 40, 48)
    middle = images[..., 4:36, 4:44]
    plain = ImageEncoder(config(crop_shape=None, resize_shape=(32, 40)))
    plain.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(encoder(images), plain(middle))
    places = {
        tuple(encoder(images, torch.Generator().manual_seed(seed))[0].tolist()) for seed in range(6)
    }
    assert len(places) > 3
    fixed = ImageEncoder(config(crop_is_random=False))
    fixed.load_state_dict(encoder.state_dict())
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(fixed(images, generator), fixed(images))


def test_steps_of_the_noising_are_told_apart():
    found = step_embedding(torch.arange(20), 8)
    assert (torch.cdist(found, found) + torch.eye(20)).min() > 0.1
    torch.testing.assert_close(found[3, 0], torch.tensor(3.0).sin())


@pytest.mark.parametrize("levels", [(8,), (8, 16), (16, 8, 24)])
@pytest.mark.parametrize("scales", [True, False])
def test_the_u_net_keeps_the_shape_and_hears_condition_and_step(levels: Any, scales: bool):
    torch.manual_seed(0)
    sizes = config(down_dims=levels, horizon=16, use_film_scale_modulation=scales)
    network = UNet(sizes)
    noisy, condition = torch.randn(2, 16, 3), torch.randn(2, sizes.condition_dim)
    steps = torch.tensor([3, 3])
    found = network(noisy, steps, condition)
    assert found.shape == noisy.shape
    assert not torch.allclose(network(noisy, steps + 1, condition), found)
    assert not torch.allclose(network(noisy, steps, condition + 0.1), found)


def test_cameras_and_moments_stand_in_their_order():
    torch.manual_seed(0)
    model = Diffusion(config()).eval()
    full = batch()
    whole = model.condition(full).unflatten(1, (2, -1))
    assert torch.equal(whole[..., :3], full["state"])
    turned = {name: tensor.flip(1) for name, tensor in full.items() if name != "action"}
    torch.testing.assert_close(model.condition(turned).unflatten(1, (2, -1)), whole.flip(1))


@pytest.mark.parametrize("kind", ["DDPM", "DDIM"])
def test_a_chunk_begins_at_the_newest_moment_and_follows_the_noise(kind: Any):
    torch.manual_seed(0)
    model = Diffusion(config(noise_scheduler_type=kind)).eval()
    shape = model.config.noise_shape
    assert shape == ((5 if kind == "DDPM" else 1), HORIZON, 3)
    noise = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = model(batch(), noise)
        everything = model.sample(model.condition(batch()), noise)
        again = model(batch(), noise)
        other = model(batch(), noise.flip(0))
    assert torch.equal(found, everything[:, 1:])
    assert torch.equal(found, again)
    assert not torch.allclose(found, other)
    assert found.abs().max() <= 1.0 + 1e-6


@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
@pytest.mark.parametrize("group_norm", [True, False])
def test_the_loss_reaches_every_weight_and_falls(prediction: Any, group_norm: bool):
    torch.manual_seed(0)
    sizes = config(
        prediction_type=prediction,
        use_group_norm=group_norm,
        use_separate_rgb_encoder_per_camera=group_norm,
    )
    model = Diffusion(sizes).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        result = model.loss(batch(), generator=torch.Generator().manual_seed(1))
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        losses.append(result["loss"].item())
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert losses[-1] < 0.9 * losses[0]


def test_padding_counts_unless_the_config_leaves_it_out():
    torch.manual_seed(0)
    full = {**batch(), "action_is_pad": torch.zeros(2, HORIZON, dtype=torch.bool)}
    full["action_is_pad"][:, -2:] = True
    counted, left_out = (
        Diffusion(config(do_mask_loss_for_padding=flag)).eval() for flag in (False, True)
    )
    left_out.load_state_dict(counted.state_dict())
    generators = (torch.Generator().manual_seed(1) for _ in range(2))
    a, b = (m.loss(full, generator=g)["loss"] for m, g in zip((counted, left_out), generators))
    assert a != b
    drawn = torch.Generator().manual_seed(1)
    steps = torch.randint(20, (2,), generator=drawn)
    noise = torch.randn(2, HORIZON, 3, generator=drawn)
    errors = left_out.errors(full, noise, steps)
    torch.testing.assert_close(b, errors[:, :-2].mean())


def test_a_sampler_is_made_as_the_config_says():
    chosen = make_sampler(config(noise_scheduler_type="DDIM", clip_sample=False))
    assert isinstance(chosen, Ddim)
    assert chosen.limit is None
    assert make_sampler(config(clip_sample_range=0.7)).limit == 0.7
