"""Torchvision's names of a residual network's weights, and ours."""

from __future__ import annotations

NAMED = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
"""As torchvision calls its parts."""
NUMBERED = ("0", "1", "4", "5", "6", "7")
"""The same parts in a row of modules, with the activation and the pooling between them."""


def backbone_pairs(stored: str, own: str, parts: tuple[str, ...]) -> list[tuple[str, str]]:
    """Lines of a `KeyTable` for a residual network."""
    stem, norm, *stages = (f"{stored}.{part}" for part in parts)
    pairs = [(stem, f"{own}.stem"), (norm, f"{own}.stem_norm")]
    for index, stage in enumerate(stages):
        block = f"{own}.stages.{index}.{{}}"
        pairs.append((f"{stage}.{{}}", block))
        pairs.append((f"{stage}.{{}}.downsample", f"{block}.shortcut"))
        pairs += [(f"{stage}.{{}}.bn{i}", f"{block}.norm{i}") for i in (1, 2, 3)]
    return pairs
