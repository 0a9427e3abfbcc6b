"""Sizes and conventions of SmolVLA; read from LeRobot's config.json and SmolVLM's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fastvla_core.errors import CheckpointError
from fastvla_core.models.backbones.decoder import DecoderSize
from fastvla_core.models.backbones.siglip import SiglipSize
from fastvla_core.models.lerobot.config import LeRobotConfig, stored_binding, typed_fields
from fastvla_core.models.lerobot.features import read_features
from fastvla_core.models.policies.smolvla.vlm import SmolVLMSize
from fastvla_core.types import Conditioning


@dataclass(frozen=True, kw_only=True)
class SmolVLAConfig(LeRobotConfig):
    """Everything that fixes a SmolVLA except its weights and statistics.

    Attributes:
        vlm: SmolVLM's sizes.
        image_markers: Token ids before and after every image; None where there are none.
        resize_imgs_with_padding: Width and height that images are brought to.
        empty_cameras: How many missing cameras are shown as masked images.
        num_steps: Euler steps from noise to actions.
        num_vlm_layers: Layers of SmolVLM that are used; all if not positive.
        num_expert_layers: Layers of the expert; as many if not positive.
        self_attn_every_n_layers: Every n-th expert layer attends jointly with the prefix.
        expert_width_multiplier: Width of the expert over SmolVLM's.
        prefix_length: Tokens that the prefix is padded to, if it has fewer.
    """

    fits_any_robot: ClassVar[bool] = True

    vlm: SmolVLMSize
    vlm_model_name: str
    image_markers: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    resize_imgs_with_padding: tuple[int, int] | None = (512, 512)
    empty_cameras: int = 0
    max_state_dim: int = 32
    max_action_dim: int = 32
    tokenizer_max_length: int = 48
    num_steps: int = 10
    num_vlm_layers: int = 16
    num_expert_layers: int = -1
    self_attn_every_n_layers: int = 2
    expert_width_multiplier: float = 0.75
    attention_mode: str = "cross_attn"
    prefix_length: int = -1
    min_period: float = 4e-3
    max_period: float = 4.0

    @property
    def image_resolution(self) -> tuple[int, int]:
        """Height and width of the images that the network sees."""
        if self.resize_imgs_with_padding is None:
            return self.features.image_sizes[self.features.cameras[0]]
        width, height = self.resize_imgs_with_padding
        return height, width

    @property
    def conditionings(self) -> tuple[Conditioning, ...]:
        """How a chunk of this policy can be made to agree with a prefix."""
        return ("inpaint",)

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Action steps and padded action dimensions."""
        return self.chunk_size, self.max_action_dim

    @property
    def flow_steps(self) -> int:
        """Euler steps from noise to actions."""
        return self.num_steps

    @property
    def vision(self) -> SiglipSize:
        """The vision tower."""
        return self.vlm.vision

    @property
    def pixel_shuffle(self) -> int:
        """Squares of this many tokens along a side become one."""
        return self.vlm.scale_factor

    @property
    def vocab_size(self) -> int:
        """Rows of the token embedding."""
        return self.vlm.vocab_size

    @property
    def text(self) -> DecoderSize:
        """The layers of SmolVLM that are used."""
        if self.num_vlm_layers <= 0:
            return self.vlm.text
        return dataclasses.replace(self.vlm.text, depth=self.num_vlm_layers)

    @property
    def expert(self) -> DecoderSize:
        """The expert."""
        text = self.text
        width = int(text.width * self.expert_width_multiplier)
        hidden = 4 * int(2 * width / 3)
        depth = self.num_expert_layers if self.num_expert_layers > 0 else text.depth
        return dataclasses.replace(
            text, width=width, mlp_width=256 * -(-hidden // 256), depth=depth
        )

    @property
    def expert_reads(self) -> tuple[int, ...]:
        """The prefix layer that each expert layer stands beside."""
        every = self.text.depth // self.expert.depth
        return tuple(index * every for index in range(self.expert.depth))

    def is_joint(self, layer: int) -> bool:
        """Whether the expert beside this prefix layer attends to prefix and itself together."""
        every = self.self_attn_every_n_layers
        return "cross" not in self.attention_mode or (every > 0 and layer % every == 0)


def read_config(
    data: Mapping[str, Any],
    *,
    folder: Path,
    vlm: SmolVLMSize,
    markers: tuple[tuple[int, ...], tuple[int, ...]] | None,
) -> SmolVLAConfig:
    """Read config.json.

    Raises:
        CheckpointError: a key is missing or wrong, or asks for what does not exist.
    """
    source = str(folder / "config.json")
    features = read_features(data, source=source, empty_cameras=int(data.get("empty_cameras", 0)))
    given = {
        "raw": data,
        "features": features,
        "binding": stored_binding(folder, data, features),
        "vlm": vlm,
        "image_markers": markers,
    }
    config = SmolVLAConfig(**typed_fields(SmolVLAConfig, data, source=source, given=given))
    _check(config, data, source)
    return config


def _check(config: SmolVLAConfig, data: Mapping[str, Any], source: str) -> None:
    refused = [
        (bool(data.get("adapt_to_pi_aloha")), "'adapt_to_pi_aloha' is set"),
        (bool(data.get("use_delta_joint_actions_aloha")), "'use_delta_joint_actions_aloha' is set"),
        (config.n_action_steps > config.chunk_size, "'n_action_steps' is larger than 'chunk_size'"),
        (
            config.features.state_dim > config.max_state_dim,
            "the state is larger than max_state_dim",
        ),
        (config.action_dim > config.max_action_dim, "the action is larger than max_action_dim"),
        (config.num_steps < 1 or config.chunk_size < 1, "'num_steps' or 'chunk_size' is below 1"),
        (config.vlm.text.depth < config.text.depth, "SmolVLM has fewer layers than num_vlm_layers"),
        (
            config.text.depth % config.expert.depth != 0,
            "'num_vlm_layers' is no multiple of 'num_expert_layers'",
        ),
        (
            any(
                config.is_joint(i) != config.is_joint(r) for i, r in enumerate(config.expert_reads)
            ),
            "'num_expert_layers' and 'self_attn_every_n_layers' make layers whose weights and "
            "attention are of different kinds",
        ),
    ]
    for wrong, what in refused:
        if wrong:
            raise CheckpointError(f"{source}: {what}", mend="there is no such network; correct it")
