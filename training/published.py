"""What the config.json of published checkpoints says of their sizes: known without a download.

Only what decides memory; cameras and columns are those of the robot that a policy is trained for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PI: Mapping[str, Any] = {
    "chunk_size": 50,
    "n_action_steps": 50,
    "max_state_dim": 32,
    "max_action_dim": 32,
    "paligemma_variant": "gemma_2b",
    "action_expert_variant": "gemma_300m",
    "image_resolution": [224, 224],
    "dtype": "float32",
}
_MEAN_STD = {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}
_QUANTILES = {"VISUAL": "IDENTITY", "STATE": "QUANTILES", "ACTION": "QUANTILES"}

PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "lerobot/smolvla_base": {
        "type": "smolvla",
        "vlm_model_name": "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
        "chunk_size": 50,
        "n_action_steps": 50,
        "tokenizer_max_length": 48,
        "normalization_mapping": _MEAN_STD,
    },
    "lerobot/pi0_base": {
        **_PI,
        "type": "pi0",
        "tokenizer_max_length": 48,
        "normalization_mapping": _MEAN_STD,
    },
    "lerobot/pi05_base": {
        **_PI,
        "type": "pi05",
        "tokenizer_max_length": 200,
        "normalization_mapping": _QUANTILES,
    },
    "lerobot/pi0fast-base": {
        **_PI,
        "type": "pi0_fast",
        "tokenizer_max_length": 200,
        "max_action_tokens": 256,
        "normalization_mapping": _QUANTILES,
    },
}
