"""The network of Diffusion Policy.

Shapes: b batch, m moments, t action steps of the horizon, a action dimensions, g values of the
condition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from fastvla_core.models.policies.diffusion.config import DiffusionConfig
from fastvla_core.models.policies.diffusion.schedule import Ddim, Ddpm, Sampler, signal_shares
from fastvla_core.models.policies.diffusion.unet import UNet
from fastvla_core.models.policies.diffusion.vision import ImageEncoder
from fastvla_core.models.policies.visuomotor.images import image_name
from fastvla_core.models.policies.visuomotor.loss import mean_error

Batch: TypeAlias = Mapping[str, Tensor]
_SHARED = "shared"


def make_sampler(config: DiffusionConfig) -> Sampler:
    """The sampler that a config describes."""
    kind = Ddpm if config.noise_scheduler_type == "DDPM" else Ddim
    return kind(
        shares=signal_shares(
            config.beta_schedule,
            steps=config.num_train_timesteps,
            start=config.beta_start,
            end=config.beta_end,
        ),
        steps=config.denoising_steps,
        prediction=config.prediction_type,
        limit=config.clip_sample_range if config.clip_sample else None,
    )


class Diffusion(nn.Module):
    """Images and states of a few moments condition a U-Net that turns noise into a chunk.

    A batch holds
        image_0, image_1, ...: float [b, m, 3, height, width], normalised, oldest moment first.
        state: float32 [b, m, s], normalised.
        action: float32 [b, t, a], normalised, from the oldest moment on; for `loss` only.
        action_is_pad: bool [b, t], optional; see `do_mask_loss_for_padding`.
    Source: Diffusion Policy, arXiv:2303.04137.
    """

    # Nearly all weights are convolutions; the small linear layers around them stay as they are.
    full_precision: ClassVar[tuple[str, ...]] = ("encoders.*", "unet.step_*")

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        count = len(config.features.cameras)
        names = (
            [str(index) for index in range(count)]
            if config.use_separate_rgb_encoder_per_camera
            else [_SHARED]
        )
        self.config = config
        self.encoders = nn.ModuleDict({name: ImageEncoder(config) for name in names})
        self.unet = UNet(config)

    def compile_parts(self) -> None:
        """Compile encoders and U-Net, each by itself."""
        for part in (*self.encoders.values(), self.unet):
            part.compile(dynamic=False)

    def condition(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The observation as values [b, g], moment by moment.

        Args:
            generator: Of the places that images are cut at; None cuts the middle.
        """
        images = [batch[image_name(index)] for index in range(len(self.config.features.cameras))]
        state = batch["state"]
        points = torch.cat(list(self._points(images, generator)), dim=-1)
        return torch.cat([state.to(points.dtype), points], dim=-1).flatten(1)

    def _points(self, images: list[Tensor], generator: torch.Generator | None) -> Iterator[Tensor]:
        b, m = images[0].shape[:2]
        if _SHARED in self.encoders:
            # All at once: batch normalisation in training sees what it saw in the reference.
            together = torch.stack(images, dim=2).flatten(0, 2)
            yield self.encoders[_SHARED](together, generator).view(b, m, -1)
            return
        for index, image in enumerate(images):
            found = self.encoders[str(index)](image.flatten(0, 1), generator)
            yield found.view(b, m, -1)

    def sample(self, condition_bg: Tensor, noise_bnta: Tensor) -> Tensor:
        """All actions of the horizon, float32 [b, t, a].

        Args:
            noise_bnta: Where to start, then what is added on the way; see `noise_shape`.
        """
        sampler = make_sampler(self.config)
        x, *added = noise_bnta.float().unbind(dim=1)
        for index, timestep in enumerate(sampler.timesteps):
            timesteps = torch.full((len(x),), timestep, device=x.device)
            output = self.unet(x, timesteps, condition_bg)
            x = sampler.step(output, x, index=index, added=added)
        return x

    def forward(self, batch: Batch, noise_bnta: Tensor) -> Tensor:
        """Normalised actions from the newest moment on, float32."""
        sampled = self.sample(self.condition(batch), noise_bnta)
        return sampled[:, self.config.past_steps :]

    def errors(
        self,
        batch: Batch,
        noise_bta: Tensor,
        timesteps_b: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Squared errors of what the network predicts, [b, t, a]."""
        action = batch["action"].float()
        noisy = make_sampler(self.config).noised(action, noise_bta, timesteps_b)
        predicted = self.unet(noisy, timesteps_b, self.condition(batch, generator))
        target = noise_bta if self.config.prediction_type == "epsilon" else action
        return (predicted - target).square()

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Mean squared error at random steps of the noising.

        Args:
            batch: See the class.
            generator: Source of steps, noise and cuts; any device.
        Returns:
            loss: scalar with gradient. loss_per_dim: [a], detached.
        """
        action, device = batch["action"], generator.device
        steps = self.config.num_train_timesteps
        drawn = torch.randint(steps, (len(action),), generator=generator, device=device)
        noise = torch.randn(action.shape, generator=generator, device=device)
        errors = self.errors(
            batch,
            noise.to(action.device),
            drawn.to(action.device),
            generator if self.training else None,
        )
        is_pad = batch.get("action_is_pad") if self.config.do_mask_loss_for_padding else None
        loss = mean_error(errors, is_pad)
        return {"loss": loss, "loss_per_dim": errors.detach().mean(dim=(0, 1))}
