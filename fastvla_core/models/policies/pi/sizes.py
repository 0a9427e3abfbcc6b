"""Sizes of the pi policies: the published ones by name, any other from architecture.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastvla_core.errors import CheckpointError
from fastvla_core.layers.attention import AttentionShape
from fastvla_core.models.backbones.decoder import DecoderSize
from fastvla_core.models.backbones.paligemma import PaliGemmaSize
from fastvla_core.models.backbones.siglip import SiglipSize
from fastvla_core.models.checkpoint import read_json
from fastvla_core.plain_data import PlainDataError, convert

_HEADS = AttentionShape(heads=8, kv_heads=1, head_dim=256)
_GEMMA = {
    "gemma_2b": DecoderSize(width=2048, depth=18, mlp_width=16_384, attention=_HEADS),
    "gemma_300m": DecoderSize(width=1024, depth=18, mlp_width=4096, attention=_HEADS),
}
_VOCABULARY = 257_152
_PATCH = 14


def published_sizes(
    data: Mapping[str, Any], *, image_side: int, source: str
) -> tuple[PaliGemmaSize, DecoderSize]:
    """PaliGemma and expert by `paligemma_variant` and `action_expert_variant`.

    Raises:
        CheckpointError: a variant is unknown.
    """
    text, expert = (
        _variant(str(data.get(key, default)), key, source)
        for key, default in (
            ("paligemma_variant", "gemma_2b"),
            ("action_expert_variant", "gemma_300m"),
        )
    )
    vision = SiglipSize(
        width=1152, depth=27, heads=16, mlp_width=4304, patch=_PATCH, grid=image_side // _PATCH
    )
    return PaliGemmaSize(vision=vision, text=text, vocab_size=_VOCABULARY), expert


def read_sizes(path: Path) -> tuple[PaliGemmaSize, DecoderSize | None]:
    """PaliGemma and, where there is one, the expert from an architecture.json.

    Raises:
        CheckpointError: the file is damaged or lacks a size; names the file and the key.
    """
    data = read_json(path)
    try:
        vision = _section(data, "vision")
        patch = _number(vision, "patch_size", "vision")
        size = PaliGemmaSize(
            vision=SiglipSize(
                width=_number(vision, "hidden_size", "vision"),
                depth=_number(vision, "num_hidden_layers", "vision"),
                heads=_number(vision, "num_attention_heads", "vision"),
                mlp_width=_number(vision, "intermediate_size", "vision"),
                patch=patch,
                grid=_number(vision, "image_size", "vision") // patch,
                eps=convert(vision.get("layer_norm_eps", 1e-6), float, where="layer_norm_eps"),
            ),
            text=_decoder(data, "paligemma_text"),
            vocab_size=_number(data, "vocab_size", ""),
        )
        return size, _decoder(data, "action_expert") if "action_expert" in data else None
    except PlainDataError as error:
        raise CheckpointError(
            f"{path}: {error}", mend="write the sizes that the weights were trained with"
        ) from error


def _variant(name: str, key: str, source: str) -> DecoderSize:
    plain = name.removesuffix("_lora")
    if plain not in _GEMMA:
        raise CheckpointError(
            f"{source}: '{key}' is '{name}'; known: {', '.join(_GEMMA)}",
            mend="write its sizes into architecture.json beside config.json",
        )
    return _GEMMA[plain]


def _decoder(data: Mapping[str, Any], key: str) -> DecoderSize:
    own = _section(data, key)
    return DecoderSize(
        width=_number(own, "width", key),
        depth=_number(own, "depth", key),
        mlp_width=_number(own, "mlp_dim", key),
        attention=AttentionShape(
            heads=_number(own, "num_heads", key),
            kv_heads=_number(own, "num_kv_heads", key),
            head_dim=_number(own, "head_dim", key),
        ),
        eps=convert(own.get("rms_norm_eps", 1e-6), float, where=f"{key}.rms_norm_eps"),
        rope_base=convert(own.get("rope_theta", 10_000.0), float, where=f"{key}.rope_theta"),
    )


def _section(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return convert(data.get(key), Mapping[str, Any], where=key)


def _number(data: Mapping[str, Any], key: str, section: str) -> int:
    where = f"{section}.{key}" if section else key
    value = convert(data.get(key), int, where=where)
    if value < 1:
        raise PlainDataError(where, f"is {value}, expected a number above 0")
    return value
