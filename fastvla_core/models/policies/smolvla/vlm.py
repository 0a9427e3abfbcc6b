"""SmolVLM's sizes: from its config.json, or known for the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastvla_core.errors import CheckpointError
from fastvla_core.layers.attention import AttentionShape
from fastvla_core.models.backbones.decoder import DecoderSize
from fastvla_core.models.backbones.siglip import SiglipSize
from fastvla_core.models.checkpoint import read_json


@dataclass(frozen=True, slots=True, kw_only=True)
class SmolVLMSize:
    """Sizes of a SmolVLM.

    Attributes:
        scale_factor: Of the pixel shuffle between vision tower and language model.
        folder: Where they were read; None where they are published ones.
    """

    vision: SiglipSize
    text: DecoderSize
    vocab_size: int
    scale_factor: int
    # Not part of what a network is known by: one that was moved stays the same.
    folder: Path | None = field(default=None, repr=False)


def read_vlm_size(path: Path) -> SmolVLMSize:
    """Read the config.json of a SmolVLM.

    Raises:
        CheckpointError: it is missing, damaged or of another model; names the file and the key.
    """
    data = read_json(path)
    vision, text = (_section(data, key, path) for key in ("vision_config", "text_config"))
    heads = _number(text, "num_attention_heads", path)
    width, patch = _number(text, "hidden_size", path), _number(vision, "patch_size", path)
    shape = AttentionShape(
        heads=heads,
        kv_heads=_number(text, "num_key_value_heads", path, heads),
        head_dim=_number(text, "head_dim", path, width // heads),
    )
    return SmolVLMSize(
        vision=SiglipSize(
            width=_number(vision, "hidden_size", path),
            depth=_number(vision, "num_hidden_layers", path, 12),
            heads=_number(vision, "num_attention_heads", path),
            mlp_width=_number(vision, "intermediate_size", path, 3072),
            patch=patch,
            grid=_number(vision, "image_size", path) // patch,
            eps=float(vision.get("layer_norm_eps", 1e-6)),
        ),
        # SmolVLA rotates with a base of 10,000 whatever SmolVLM was trained with.
        text=DecoderSize(
            width=width,
            depth=_number(text, "num_hidden_layers", path),
            mlp_width=_number(text, "intermediate_size", path),
            attention=shape,
            eps=float(text.get("rms_norm_eps", 1e-5)),
        ),
        vocab_size=_number(text, "vocab_size", path),
        scale_factor=_number(data, "scale_factor", path, 2),
        folder=path.parent,
    )


def _published(
    *, width: int, depth: int, mlp: int, heads: int, kv_heads: int, factor: int
) -> SmolVLMSize:
    return SmolVLMSize(
        vision=SiglipSize(width=768, depth=12, heads=12, mlp_width=3072, patch=16, grid=32),
        text=DecoderSize(
            width=width,
            depth=depth,
            mlp_width=mlp,
            attention=AttentionShape(heads=heads, kv_heads=kv_heads, head_dim=64),
            eps=1e-5,
        ),
        vocab_size=49_280,
        scale_factor=factor,
    )


PUBLISHED: Mapping[str, SmolVLMSize] = {
    "SmolVLM2-256M-Video-Instruct": _published(
        width=576, depth=30, mlp=1536, heads=9, kv_heads=3, factor=4
    ),
    "SmolVLM2-500M-Video-Instruct": _published(
        width=960, depth=32, mlp=2560, heads=15, kv_heads=5, factor=4
    ),
}


def _section(data: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    value = data.get(key)
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{path}: the key '{key}' is missing", mend="is it a SmolVLM?")
    return value


def _number(data: Mapping[str, Any], key: str, path: Path, default: int | None = None) -> int:
    value = data.get(key, default)
    if not isinstance(value, int) or value < 1:
        raise CheckpointError(
            f"{path}: '{key}' is {value!r}, expected a whole number above 0",
            mend="use the config.json of the model that the policy was trained from",
        )
    return value
