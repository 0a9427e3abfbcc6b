"""A composed policy whose parts a recipe names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastvla_core.models.policies.vla.config import VLAConfig


def vla_config(
    *,
    cameras: Sequence[str],
    state_names: Sequence[str],
    action_names: Sequence[str],
    **others: Any,
) -> VLAConfig:
    """SmolVLM2 500M and a flow head of 24 million parameters, as far as `others` says nothing.

    Args:
        others: Any other field of `VLAConfig`.
    """
    fields: dict[str, Any] = {
        "backbone": "smolvlm2-500m",
        "image_resolution": (512, 512),
        "head": {"type": "flow"},
        "chunk_size": 16,
        "n_action_steps": 4,
    }
    return VLAConfig(
        cameras=tuple(cameras),
        state_names=tuple(state_names),
        action_names=tuple(action_names),
        **{**fields, **others},
    )
