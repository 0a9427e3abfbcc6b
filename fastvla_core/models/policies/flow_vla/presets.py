"""Ready-made sizes of the flow policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastvla_core.layers.attention import AttentionShape
from fastvla_core.models.policies.flow_vla.config import FlowVLAConfig, TransformerSize


def nano_config(
    *,
    cameras: Sequence[str],
    state_names: Sequence[str],
    action_names: Sequence[str],
    **others: Any,
) -> FlowVLAConfig:
    """2.3 million parameters for two cameras of 96 x 96: trains and runs on one CPU core.

    Args:
        others: Any other field of `FlowVLAConfig`.
    """
    size = TransformerSize(width=128, depth=3, mlp_width=256)
    fields: dict[str, Any] = {
        "image_resolution": (96, 96),
        "vision": {
            "type": "film_conv",
            "per_camera_weights": True,
            "channels": [48, 96, 128],
            "first_stride": 4,
            "condition_width": 128,
        },
        "image_points": 32,
        "text": TransformerSize(width=128, depth=2, mlp_width=256),
        "prefix": size,
        "expert": size,
        "attention": AttentionShape(heads=4, kv_heads=2, head_dim=32),
    }
    return FlowVLAConfig(
        cameras=tuple(cameras),
        state_names=tuple(state_names),
        action_names=tuple(action_names),
        **{**fields, **others},
    )


def large_config(
    *,
    cameras: Sequence[str],
    state_names: Sequence[str],
    action_names: Sequence[str],
    **others: Any,
) -> FlowVLAConfig:
    """About 2.9 billion parameters, in the proportions of pi0: same classes, a transformer stem.

    Args:
        others: Any other field of `FlowVLAConfig`.
    """
    fields: dict[str, Any] = {
        "image_resolution": (224, 224),
        "chunk_size": 50,
        "num_inference_steps": 10,
        "flow_samples_per_prefix": 1,
        "vocab_size": 32_768,
        "tokenizer_max_length": 48,
        "vision": {
            "type": "vit",
            "patch": 14,
            "token_width": 1152,
            "depth": 27,
            "heads": 16,
            "mlp_width": 2880,
        },
        "text": TransformerSize(width=2048, depth=2, mlp_width=16_384),
        "prefix": TransformerSize(width=2048, depth=18, mlp_width=16_384),
        "expert": TransformerSize(width=1024, depth=18, mlp_width=4096),
        "attention": AttentionShape(heads=8, kv_heads=1, head_dim=256),
    }
    return FlowVLAConfig(
        cameras=tuple(cameras),
        state_names=tuple(state_names),
        action_names=tuple(action_names),
        **{**fields, **others},
    )
