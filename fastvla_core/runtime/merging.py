"""How the next chunk takes over from the running one: strategies behind one interface.

Shapes: t rows of a chunk, a action dimensions.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import PolicyError
from fastvla_core.types import ChunkPrefix, Conditioning

ChunkMerge: TypeAlias = Literal["auto", "pause", "switch", "ensemble", "rtc", "rtc_trained"]
CHUNK_MERGES: tuple[ChunkMerge, ...] = get_args(ChunkMerge)

# Measured with the nano policy (README.md): a delay of one of a chunk's eight steps costs next to
# nothing, of two much; and up to one step, guidance gains nothing for its backward passes.
_PATIENCE_SHARE = 1.5 / 8
_GUIDED_FROM_STEPS = 1.0
_ENSEMBLE_DECAY = 0.01
_ENSEMBLE_SIZE = 16


@dataclass(frozen=True, slots=True)
class TimedTargets:
    """Targets [t, a] and when each of them is due, int64 [t] in ns."""

    times_ns: NDArray[np.int64]
    positions: NDArray[np.float64]


class MergeStrategy(Protocol):
    """Decides what of a new chunk is carried out, once it is there.

    Attributes:
        conditioning: How the policy is told what is planned already; None when it is not told.
        patience_share: With a longer delay, as a share of a chunk's time, the robot stands still
            while the policy infers: each chunk then begins where the robot is.
        told_from_steps: With a shorter delay, in action steps, the policy is told nothing.
    """

    @property
    def conditioning(self) -> Conditioning | None: ...

    @property
    def patience_share(self) -> float: ...

    @property
    def told_from_steps(self) -> float: ...

    def reset(self) -> None:
        """Forget earlier chunks: the robot starts from rest."""
        ...

    def merge(self, chunk: TimedTargets, prefix: ChunkPrefix | None) -> NDArray[np.float64]:
        """The rows to carry out, [t, a].

        Args:
            prefix: What the policy was told when it inferred the chunk.
        """
        ...


class SwitchOver:
    """The newest chunk is right: it replaces what was left of the one before."""

    conditioning: Conditioning | None = None
    told_from_steps: float = 0.0

    def __init__(self, *, patience_share: float = math.inf) -> None:
        self.patience_share = patience_share

    def reset(self) -> None:
        """Nothing is remembered."""

    def merge(self, chunk: TimedTargets, prefix: ChunkPrefix | None) -> NDArray[np.float64]:
        """The chunk as it is."""
        return chunk.positions


class TemporalEnsemble:
    """Each row is the mean of what every chunk so far has said for its time.

    The i-th oldest of them has the weight exp(-0.01 i), so all count nearly alike. What chunks of
    other phases say between their rows is interpolated.

    Source: ACT, arXiv:2304.13705, section IV.
    """

    conditioning: Conditioning | None = None
    patience_share: float = math.inf
    told_from_steps: float = 0.0

    def __init__(self) -> None:
        self._chunks: deque[TimedTargets] = deque(maxlen=_ENSEMBLE_SIZE)

    def reset(self) -> None:
        """Forget earlier chunks."""
        self._chunks.clear()

    def merge(self, chunk: TimedTargets, prefix: ChunkPrefix | None) -> NDArray[np.float64]:
        """The weighted means; rows beyond the end of every older chunk stay as they are."""
        self._chunks.append(chunk)
        total, weights = np.zeros_like(chunk.positions), np.zeros(len(chunk.positions))
        said = np.zeros(len(chunk.positions))
        for older in self._chunks:
            first, last = older.times_ns[[0, -1]]
            covered = (chunk.times_ns >= first) & (chunk.times_ns <= last)
            weight = covered * np.exp(-_ENSEMBLE_DECAY * said)
            total += weight[:, None] * _interpolated(older, chunk.times_ns)
            weights += weight
            said += covered
        return total / weights[:, None]


class RealTimeChunking:
    """The policy itself continues the plan: it is told which rows will have been executed.

    "inpaint" guides any flow policy, at the price of a backward pass per flow step. "trained" costs
    nothing, and needs a policy that was trained for it.

    Source: arXiv:2506.07339; "trained": arXiv:2512.05964.
    """

    def __init__(
        self,
        conditioning: Conditioning,
        *,
        patience_share: float = math.inf,
        told_from_steps: float = 0.0,
    ) -> None:
        self.conditioning: Conditioning | None = conditioning
        self.patience_share, self.told_from_steps = patience_share, told_from_steps

    def reset(self) -> None:
        """Nothing is remembered."""

    def merge(self, chunk: TimedTargets, prefix: ChunkPrefix | None) -> NDArray[np.float64]:
        """The chunk, with the frozen rows exactly as planned: guidance meets them nearly."""
        if prefix is None:
            return chunk.positions
        frozen = min(prefix.frozen, len(chunk.positions))
        return np.vstack([prefix.positions[:frozen], chunk.positions[frozen:]])


def check_merge(name: ChunkMerge, *, conditionings: Collection[Conditioning]) -> None:
    """See that a policy can be told what a strategy has to tell it.

    Args:
        conditionings: The ways in which it can be told.
    Raises:
        PolicyError: it cannot; says what would be needed.
    """
    needed = merge_strategy(name, conditionings=conditionings).conditioning
    if needed is not None and needed not in conditionings:
        raise PolicyError(
            f"chunks of this policy cannot be merged by '{name}': it can be told what is planned "
            f"by {', '.join(conditionings) or 'no means'}, and not by '{needed}'",
            mend="train it with `training.max_prefix_steps` above 0, or merge by 'rtc'"
            if needed == "trained"
            else "merge by 'auto', 'switch' or 'ensemble', or use a flow policy",
        )


def merge_strategy(
    name: ChunkMerge, *, conditionings: Collection[Conditioning] = ()
) -> MergeStrategy:
    """A fresh strategy; one per goal, because an ensemble remembers.

    Args:
        conditionings: How the policy can be told what is planned; "auto" makes use of it.
    """
    if name == "ensemble":
        return TemporalEnsemble()
    if name in ("rtc", "rtc_trained"):
        return RealTimeChunking("inpaint" if name == "rtc" else "trained")
    if name == "auto" and "inpaint" in conditionings:
        return RealTimeChunking(
            "inpaint", patience_share=_PATIENCE_SHARE, told_from_steps=_GUIDED_FROM_STEPS
        )
    return SwitchOver(patience_share={"auto": _PATIENCE_SHARE, "pause": 0.0}.get(name, math.inf))


def _interpolated(chunk: TimedTargets, times_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    origin = chunk.times_ns[0]
    known, wanted = chunk.times_ns - origin, times_ns - origin
    return np.stack([np.interp(wanted, known, c) for c in chunk.positions.T], axis=1)
