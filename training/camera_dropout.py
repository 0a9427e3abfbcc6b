"""Which camera is hidden from a sample, so that a policy learns to do without any one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import DatasetError

CameraDropout: TypeAlias = float | Mapping[str, float]
"""Chance that one camera is hidden, whichever; or the chance of each camera by its name."""


def hiding_chances(dropout: CameraDropout, cameras: Sequence[str]) -> NDArray[np.float64]:
    """Chance of each camera to be the hidden one, [C]; a policy's only camera is never hidden.

    Raises:
        DatasetError: a name that is no camera of the policy, or chances that add up to more than 1.
    """
    if isinstance(dropout, Mapping):
        unknown = [name for name in dropout if name not in cameras]
        if unknown:
            raise DatasetError(
                f"camera_dropout names '{unknown[0]}', no camera of the policy",
                mend=f"name cameras among {', '.join(cameras)}",
            )
        chances = np.array([dropout.get(name, 0.0) for name in cameras])
    else:
        chances = np.full(len(cameras), dropout / len(cameras))
    if chances.min() < 0 or chances.sum() > 1 + 1e-9:
        raise DatasetError(
            f"camera_dropout is {dropout}",
            mend="give chances of at least 0 that add up to at most 1: one sample lacks one camera",
        )
    return chances if len(cameras) > 1 else np.zeros(1)


def draw_hidden(
    chances: NDArray[np.float64], random: np.random.Generator, *, size: int
) -> NDArray[np.bool_]:
    """True for the camera that a sample lacks, bool [size, C]; at most one per row."""
    column = np.searchsorted(np.cumsum(chances), random.random(size), side="right")
    return column[:, None] == np.arange(len(chances))
