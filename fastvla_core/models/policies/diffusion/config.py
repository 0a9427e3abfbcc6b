"""Sizes and conventions of Diffusion Policy; read from LeRobot's config.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastvla_core.errors import CheckpointError
from fastvla_core.models.lerobot.config import typed_fields
from fastvla_core.models.lerobot.files import LocalFiles
from fastvla_core.models.policies.diffusion.schedule import BetaSchedule, Prediction
from fastvla_core.models.policies.visuomotor.config import VisuomotorConfig, common_values

# The U-Net's last block has so many groups whatever `n_groups` says.
LAST_GROUPS = 8


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(VisuomotorConfig):
    """Everything that fixes a Diffusion Policy except its weights and statistics.

    A chunk has the rows of `horizon` from the newest observation on; `horizon` itself begins with
    the oldest one.

    Attributes:
        n_obs_steps: Moments that are read, one action step apart.
        resize_shape, crop_shape: Height and width that images are stretched and then cut to; the
            middle of them in use.
        crop_is_random: Cut anywhere in training.
        use_group_norm: Group instead of batch normalisation in the backbone.
        use_separate_rgb_encoder_per_camera: One encoder per camera rather than one for all.
        spatial_softmax_num_keypoints: Points that an image is described by.
        down_dims: Channels of the U-Net's levels, each half as long as the one before.
        use_film_scale_modulation: The condition scales channels as well as shifting them.
        prediction_type: Whether the network says the noise or the actions.
        num_inference_steps: Denoising steps; as many as in training where it is None.
        do_mask_loss_for_padding: Steps behind the end of a recording do not count.
    """

    n_obs_steps: int = 2
    horizon: int = 16
    resize_shape: tuple[int, int] | None = None
    crop_shape: tuple[int, int] | None = None
    crop_is_random: bool = True
    use_group_norm: bool = True
    use_separate_rgb_encoder_per_camera: bool = False
    spatial_softmax_num_keypoints: int = 32
    down_dims: tuple[int, ...] = (512, 1024, 2048)
    kernel_size: int = 5
    n_groups: int = 8
    diffusion_step_embed_dim: int = 128
    use_film_scale_modulation: bool = True
    noise_scheduler_type: Literal["DDPM", "DDIM"] = "DDPM"
    num_train_timesteps: int = 100
    beta_schedule: BetaSchedule = "squaredcos_cap_v2"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    prediction_type: Prediction = "epsilon"
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    num_inference_steps: int | None = None
    do_mask_loss_for_padding: bool = False

    @property
    def past_steps(self) -> int:
        """Action steps before an observation whose observations the network reads with it."""
        return self.n_obs_steps - 1

    @property
    def denoising_steps(self) -> int:
        """Passes through the U-Net per chunk."""
        return self.num_inference_steps or self.num_train_timesteps

    @property
    def draws(self) -> int:
        """Times that noise is added on the way: none in DDIM, and never behind the last step."""
        return self.denoising_steps - 1 if self.noise_scheduler_type == "DDPM" else 0

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """The start and what is added on the way, of all actions of the horizon."""
        return 1 + self.draws, self.horizon, self.action_dim

    @property
    def seen_size(self) -> tuple[int, int]:
        """Height and width of what the backbone sees."""
        return self.crop_shape or self.resize_shape or self.image_resolution

    @property
    def condition_dim(self) -> int:
        """Values that describe the observation: state and points of every camera and moment."""
        points = 2 * self.spatial_softmax_num_keypoints * len(self.features.cameras)
        return self.n_obs_steps * (self.features.state_dim + points)


def read_config(data: Mapping[str, Any], *, folder: Path, files: LocalFiles) -> DiffusionConfig:
    """Read config.json.

    Raises:
        CheckpointError: a key is missing or wrong, or asks for what does not exist.
    """
    source = str(folder / "config.json")
    given = common_values(data, folder=folder, files=files)
    horizon, moments = int(data.get("horizon", 16)), int(data.get("n_obs_steps", 2))
    given["chunk_size"] = horizon - moments + 1
    config = DiffusionConfig(**typed_fields(DiffusionConfig, data, source=source, given=given))
    for what in _refused(config):
        raise CheckpointError(f"{source}: {what}", mend="there is no such network; correct it")
    return config


def _refused(config: DiffusionConfig) -> Iterator[str]:
    levels = len(config.down_dims)
    if config.n_obs_steps < 1 or config.chunk_size < 1 or not levels:
        yield "'n_obs_steps', 'horizon' and 'down_dims' leave nothing to predict"
    elif config.horizon % 2**levels:
        yield f"'horizon' is no multiple of {2**levels}, which {levels} 'down_dims' need"
    if config.n_action_steps > config.chunk_size:
        yield "'n_action_steps' is above horizon - n_obs_steps + 1"
    if len(set(config.image_sizes)) > 1:
        yield f"the cameras differ in size: {config.image_sizes}"
    if not 1 <= config.denoising_steps <= config.num_train_timesteps:
        yield "'num_inference_steps' is not between 1 and 'num_train_timesteps'"
    full = config.resize_shape or config.image_resolution
    if any(seen > there for seen, there in zip(config.seen_size, full)):
        yield f"'crop_shape' is larger than the images, {list(full)}"
    if config.diffusion_step_embed_dim < 4 or config.diffusion_step_embed_dim % 2:
        yield "'diffusion_step_embed_dim' is no even number from 4 on"
    if config.use_group_norm and any(width % 16 for width in config.backbone.widths):
        yield "the backbone's widths are no multiples of 16, which group normalisation needs"
    if any(width % config.n_groups for width in config.down_dims):
        yield "'down_dims' are no multiples of 'n_groups'"
    elif levels and config.down_dims[0] % LAST_GROUPS:
        yield f"the first of 'down_dims' is no multiple of {LAST_GROUPS}"
