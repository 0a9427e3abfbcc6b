"""Sizes and conventions of ACT; read from LeRobot's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastvla_core.errors import CheckpointError
from fastvla_core.models.lerobot.config import typed_fields
from fastvla_core.models.lerobot.files import LocalFiles
from fastvla_core.models.policies.visuomotor.config import VisuomotorConfig, common_values


@dataclass(frozen=True, kw_only=True)
class ActConfig(VisuomotorConfig):
    """Everything that fixes an ACT except its weights and statistics.

    Attributes:
        dim_model, n_heads, dim_feedforward: Sizes of all transformer layers.
        n_encoder_layers, n_decoder_layers: Layers that read the observation and make the chunk.
        pre_norm: Normalise in front of attention and feed-forward part instead of behind.
        use_vae: Whether training has an encoder of the chunk, whose latent is zero in use.
        n_vae_encoder_layers, latent_dim: Its sizes.
        kl_weight: Weight of the latent's divergence from the standard normal in the loss.
    """

    dim_model: int = 512
    n_heads: int = 8
    dim_feedforward: int = 3200
    feedforward_activation: Literal["relu", "gelu"] = "relu"
    n_encoder_layers: int = 4
    n_decoder_layers: int = 1
    pre_norm: bool = False
    use_vae: bool = True
    n_vae_encoder_layers: int = 4
    latent_dim: int = 32
    dropout: float = 0.1
    kl_weight: float = 10.0

    @property
    def noise_shape(self) -> tuple[int, int]:
        """There is no noise: the latent is zero."""
        return 0, 0


def read_config(data: Mapping[str, Any], *, folder: Path, files: LocalFiles) -> ActConfig:
    """Read config.json.

    Raises:
        CheckpointError: a key is missing or wrong, or asks for what does not exist.
    """
    source = str(folder / "config.json")
    dilated = bool(data.get("replace_final_stride_with_dilation", False))
    given = common_values(data, folder=folder, files=files, dilated=dilated)
    config = ActConfig(**typed_fields(ActConfig, data, source=source, given=given))
    refused = [
        (data.get("n_obs_steps", 1) != 1, "'n_obs_steps' is not 1"),
        (config.n_action_steps > config.chunk_size, "'n_action_steps' is above 'chunk_size'"),
        (config.chunk_size < 1, "'chunk_size' is below 1"),
        (config.dim_model % config.n_heads != 0, "'dim_model' is no multiple of 'n_heads'"),
        # Half of the position in an image is the row's, half the column's, each in pairs.
        (config.dim_model % 4 != 0, "'dim_model' is no multiple of 4"),
        (not 0 <= config.dropout < 1, "'dropout' is not in [0, 1)"),
    ]
    for wrong, what in refused:
        if wrong:
            raise CheckpointError(f"{source}: {what}", mend="there is no such network; correct it")
    return config
