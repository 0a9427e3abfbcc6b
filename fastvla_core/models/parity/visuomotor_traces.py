"""Every intermediate value of ACT and Diffusion Policy on a stored case."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fastvla_core.models.parity.cases import Case
from fastvla_core.models.policies.act.model import Act
from fastvla_core.models.policies.diffusion.model import Diffusion, make_sampler
from fastvla_core.models.policies.visuomotor.images import image_name
from fastvla_core.models.policies.visuomotor.loss import mean_error

Batch = Mapping[str, Tensor]
_PADDED = "_with_action_is_pad"


def act_trace(model: Act, batch: Batch, case: Case) -> dict[str, Tensor]:
    """What ACT computes; its `output` are normalised actions."""
    images = [batch[image_name(index)] for index in range(len(model.config.features.cameras))]
    tokens = model.tokens(batch, model.zero_latent(batch))
    memory = model.encoder(tokens.x_bnw, tokens.positions_1nw)
    found = {
        "mid/encoder_tokens": tokens.x_bnw,
        "mid/encoder_positions": tokens.positions_1nw,
        "mid/encoder_out": memory,
        "mid/decoder_out": model.decode(tokens, memory),
        "output": model(batch, torch.empty(0)),
    }
    for index, image in enumerate(images):
        found[f"model/image_{index}"] = image
        found[f"mid/feature_map_{index}"] = model.backbone(image)
    for suffix, padding in (("", {}), (_PADDED, {"action_is_pad": "raw/action_is_pad"})):
        full = {**batch, **{name: case.tensors[key] for name, key in padding.items()}}
        losses = model.losses(full, case.tensors.get("raw/latent_noise", torch.empty(0)))
        found |= {f"train/{n}{suffix}": losses[n][None] for n in losses if n != "loss_per_dim"}
        if model.latent is not None:
            found[f"train/latent_parameters{suffix}"] = model.latent(
                full["state"], full["action"], full.get("action_is_pad")
            )
    return found


def diffusion_trace(model: Diffusion, batch: Batch, case: Case) -> dict[str, Tensor]:
    """What Diffusion Policy computes; its `output` are as many actions as the reference gives."""
    config, stored = model.config, case.tensors
    noise = torch.cat([stored["raw/noise"][None], stored.get("raw/step_noise", torch.empty(0))])
    condition, sampler = model.condition(batch), make_sampler(config)
    x, added = noise[0], noise[1:].unbind()
    points, outputs = list[Tensor](), list[Tensor]()
    for index, timestep in enumerate(sampler.timesteps):
        points.append(x)
        outputs.append(model.unet(x, torch.full((len(x),), timestep), condition))
        x = sampler.step(outputs[-1], x, index=index, added=added)
    errors = model.errors(batch, stored["raw/train_noise"], stored["raw/train_timesteps"])
    images = [batch[image_name(index)][:, -1] for index in range(len(config.features.cameras))]
    return {
        **{f"model/image_{index}": image for index, image in enumerate(images)},
        "mid/condition": condition,
        "mid/timesteps": torch.tensor(sampler.timesteps).float(),
        "mid/x_t": torch.stack(points),
        "mid/network_output": torch.stack(outputs),
        "mid/sample": x,
        "train/loss": mean_error(errors, None)[None],
        "train/loss_with_action_is_pad": mean_error(errors, stored.get("raw/action_is_pad"))[None],
        "output": model(batch, noise.transpose(0, 1))[:, : config.n_action_steps],
    }
