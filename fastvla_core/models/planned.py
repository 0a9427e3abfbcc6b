"""What is planned already, in the columns and rows of a policy's chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvla_core.errors import PolicyError
from fastvla_core.models.flow_prefix import FlowPrefix
from fastvla_core.types import ChunkPrefix, Conditioning


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The prefixes of a batch.

    Attributes:
        positions: float64 [b, rows, names]; rows that nothing is planned for hold the last one.
        lengths, frozen: Rows of each sample that are planned, and those that cannot change.
    """

    positions: NDArray[np.float64]
    lengths: list[int]
    frozen: list[int]
    conditioning: Conditioning

    def flow_prefix(self, actions_bta: Tensor, *, most: int, device: torch.device) -> FlowPrefix:
        """The same for a network.

        Args:
            actions_bta: The positions in the network's frame.
            most: Frozen rows that the network can be given.
        """
        frozen = [min(rows, most) for rows in self.frozen]
        return FlowPrefix(
            actions_bta=actions_bta.float().to(device),
            frozen_b=torch.tensor(frozen, device=device),
            planned_b=torch.tensor(self.lengths, device=device),
            conditioning=self.conditioning,
        )


def planned_rows(
    prefixes: Sequence[ChunkPrefix | None], *, names: tuple[str, ...], rows: int
) -> Planned:
    """Bring prefixes to a policy's columns and number of rows.

    Args:
        prefixes: One per observation, None for a chunk that is free; columns go by name.
    Raises:
        PolicyError: names are not the policy's, or ways of conditioning are mixed.
    """
    given = [prefix for prefix in prefixes if prefix is not None]
    if len({prefix.conditioning for prefix in given}) != 1:
        raise PolicyError("the prefixes of one batch need one way of conditioning")
    return Planned(
        positions=np.stack([_positions(prefix, names, rows) for prefix in prefixes]),
        lengths=[0 if p is None else min(len(p.positions), rows) for p in prefixes],
        frozen=[0 if p is None else min(p.frozen, rows) for p in prefixes],
        conditioning=given[0].conditioning,
    )


def _positions(
    prefix: ChunkPrefix | None, names: tuple[str, ...], rows: int
) -> NDArray[np.float64]:
    if prefix is None:
        return np.zeros((rows, len(names)))
    if sorted(prefix.names) != sorted(names):
        raise PolicyError(
            f"a chunk prefix has {', '.join(prefix.names)}, the policy {', '.join(names)}"
        )
    columns = [prefix.names.index(name) for name in names]
    known = prefix.positions[:rows, columns]
    # Rows without a plan have no weight; the last one keeps them within the usual range.
    return np.vstack([known, np.repeat(known[-1:], rows - len(known), axis=0)])
