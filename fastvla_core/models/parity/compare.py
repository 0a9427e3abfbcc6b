"""How far a computed tensor is from a stored one, and whether that is near enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

ACTION_LIMIT = 1e-5
RELATIVE_LIMIT = 1e-4
_PREFIX_NAMES = ("prefix_embs", "prefix_out", "prefix_position_ids", "prefix_att_2d")
_CACHE_NAMES = ("prefix_k_layer", "prefix_v_layer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """One tensor of one case.

    Attributes:
        name: Group and name.
        absolute: Largest absolute error; None where nothing was computed.
        relative: The same over the largest magnitude of the stored tensor.
        limit: What is allowed: absolute for actions, none for integers, else relative.
        passed: Whether it is; None where nothing was computed to compare with.
        note: Why it failed, where a number does not say it.
    """

    name: str
    absolute: float | None
    relative: float | None
    limit: float
    passed: bool | None
    note: str = ""


def compare(stored: Mapping[str, Tensor], computed: Mapping[str, Tensor]) -> list[Deviation]:
    """The deviation of every stored tensor that is no input.

    Values at masked positions of the prefix are not compared: no valid value depends on them.
    """
    mask = stored.get("mid/prefix_pad_mask")
    names = [name for name in stored if not name.startswith("raw/")]
    return [_deviation(name, stored[name], computed.get(name), mask) for name in names]


def _deviation(
    name: str, stored: Tensor, computed: Tensor | None, mask_bp: Tensor | None
) -> Deviation:
    exact = not stored.is_floating_point()
    action = name.startswith("out/")
    limit = 0.0 if exact else ACTION_LIMIT if action else RELATIVE_LIMIT
    if computed is None:
        return Deviation(
            name=name, absolute=None, relative=None, limit=limit, passed=None, note="not computed"
        )
    computed = computed.detach().cpu()
    if computed.shape != stored.shape:
        note = f"shape {tuple(computed.shape)}, stored {tuple(stored.shape)}"
        return Deviation(
            name=name, absolute=None, relative=None, limit=limit, passed=False, note=note
        )
    ours, theirs = (_valid(name, t, mask_bp).double() for t in (computed, stored))
    absolute = float((ours - theirs).abs().max()) if theirs.numel() else 0.0
    scale = float(theirs.abs().max()) if theirs.numel() else 0.0
    relative = absolute / scale if scale else absolute
    # A NaN compares as not within.
    passed = (relative if not exact and not action else absolute) <= limit
    return Deviation(name=name, absolute=absolute, relative=relative, limit=limit, passed=passed)


def _valid(name: str, tensor: Tensor, mask_bp: Tensor | None) -> Tensor:
    short = name.removeprefix("mid/")
    if mask_bp is None or not name.startswith("mid/"):
        return tensor
    if short.startswith(_CACHE_NAMES):
        return tensor.transpose(1, 2)[mask_bp]
    if short in _PREFIX_NAMES and tensor.shape[:2] == mask_bp.shape:
        return tensor[mask_bp]
    return tensor


def all_close(deviations: list[Deviation]) -> bool:
    """Whether nothing failed."""
    return all(d.passed is not False for d in deviations)


def worst(deviations: list[Deviation], *, actions: bool) -> float:
    """The largest error: absolute over actions, else relative over all other real numbers."""
    found = [
        d.absolute if actions else d.relative
        for d in deviations
        if d.limit and d.name.startswith("out/") == actions and d.absolute is not None
    ]
    return max((torch.inf if value is None else value for value in found), default=0.0)
