"""What a backbone is: from its files, without reading its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastvla_core.errors import CheckpointError
from fastvla_core.models.backbones.vlm.loading import family_of, unweighted_network
from fastvla_core.models.checkpoint import tensor_shapes
from fastvla_core.models.describe import memory_lines, precision_line
from fastvla_core.models.lerobot.stored import weight_files
from fastvla_core.models.registry import VLM_BACKBONES

_CAMERA = (224, 224)


def describe_backbone(folder: Path, *, origin: str) -> dict[str, Any]:
    """Type, sizes and memory of a vision-language model in the layout of Transformers.

    Args:
        origin: Folder or Hub name, to say what is known of it.
    Raises:
        CheckpointError: a file is missing or damaged, or the family is not known.
        DependencyError: Transformers is not installed.
    """
    family = family_of(folder)
    backbone = family(unweighted_network(family, folder), folder=folder, origin=origin)
    shape, count = backbone.language_shape, backbone.num_parameters
    height, width = backbone.recipe.size_of(*_CAMERA)
    entry = VLM_BACKBONES.load(origin) if origin in VLM_BACKBONES else None
    parts = ", ".join(f"{part} {count(part) / 1e6:.2f} M" for part in family.part_names)
    skip = family.full_precision()
    return {
        "folder": str(folder),
        "type": f"vision-language backbone, {backbone.network.config.model_type}",
        "published as": None if entry is None else f"{entry.repo} ({entry.licence})",
        "note": family.notice or None,
        "language model": f"{shape.layers} layers of width {shape.width}, {shape.heads} heads "
        f"({shape.kv_heads} for keys) of {shape.head_dim}",
        "tokenizer": f"{backbone.tokenizer.size} entries",
        "a 224 x 224 camera": f"{height} x {width} pixels, "
        f"{backbone.num_image_tokens(*_CAMERA)} tokens",
        "parts": parts,
        **_weights(folder),
        **memory_lines(backbone.network, int8_skip=skip, nf4_skip=skip),
    }


def _weights(folder: Path) -> dict[str, str]:
    try:
        paths = weight_files(folder)
    except CheckpointError:
        # Looked up by name: the config alone was fetched.
        return {"weights": "not here"}
    shapes = {name: found for path in paths for name, found in tensor_shapes(path).items()}
    return {
        "weights": f"{sum(path.stat().st_size for path in paths) / 1e6:.2f} MB",
        "precision": precision_line(shapes),
    }
