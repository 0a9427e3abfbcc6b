"""How a feature is brought to a range that a network likes, by LeRobot's rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fastvla_core.errors import CheckpointError

_WHOLE_FILES = "use the statistics that belong to config.json, or compute them again"
_RANGES = {"MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}
MODES = ("IDENTITY", "MEAN_STD", *_RANGES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """A reversible scaling of a feature's last dimension.

    Attributes:
        offset, divisor: Normalised is (x - offset) / divisor * gain - shift.
        factor: Its inverse is (x + shift) / gain * factor + offset. LeRobot's mean and standard
            deviation divide by a little more than they multiply by.
    """

    offset: Tensor
    divisor: Tensor
    factor: Tensor
    gain: float
    shift: float

    def normalize(self, x: Tensor) -> Tensor:
        """To the network's range."""
        offset, divisor = self.offset.to(x), self.divisor.to(x)
        return self.gain * (x - offset) / divisor - self.shift

    def unnormalize(self, x: Tensor) -> Tensor:
        """Back from it."""
        return (x + self.shift) / self.gain * self.factor.to(x) + self.offset.to(x)


def affine(
    mode: str,
    statistics: Mapping[str, Tensor],
    *,
    feature: str,
    dim: int,
    eps: float,
    source: str,
) -> Affine | None:
    """The scaling of one feature; None for "IDENTITY".

    Args:
        mode: One of `MODES`.
        statistics: Names such as "mean" to tensors [dim].
        eps: Added to a standard deviation; the range of a feature that never moved.
    Raises:
        CheckpointError: the mode is unknown, or a statistic is missing or of another size.
    """
    if mode == "IDENTITY":
        return None
    if mode == "MEAN_STD":
        mean, std = (_statistic(statistics, n, feature, dim, source) for n in ("mean", "std"))
        return Affine(offset=mean, divisor=std + eps, factor=std, gain=1.0, shift=0.0)
    if mode not in _RANGES:
        raise CheckpointError(
            f"{source}: '{feature}' is normalised by '{mode}'; known: {', '.join(MODES)}",
            mend="correct the mode",
        )
    low, high = (_statistic(statistics, n, feature, dim, source) for n in _RANGES[mode])
    span = high - low
    span = torch.where(span == 0, torch.full_like(span, eps), span)
    return Affine(offset=low, divisor=span, factor=span, gain=2.0, shift=1.0)


def _statistic(
    statistics: Mapping[str, Tensor], name: str, feature: str, dim: int, source: str
) -> Tensor:
    if name not in statistics:
        have = ", ".join(sorted(statistics)) or "none"
        raise CheckpointError(
            f"{source}: the statistic '{feature}.{name}' is missing; there is: {have}",
            mend=_WHOLE_FILES,
        )
    values = statistics[name].float()
    if values.shape[-1:] != (dim,):
        raise CheckpointError(
            f"{source}: '{feature}.{name}' has the shape {tuple(values.shape)}, the feature has "
            f"{dim} values",
            mend=_WHOLE_FILES,
        )
    if not bool(values.isfinite().all()):
        raise CheckpointError(f"{source}: '{feature}.{name}' is not finite", mend=_WHOLE_FILES)
    return values
