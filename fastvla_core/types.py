"""What crosses the boundaries between rooms: observations, action chunks, commands. All frozen."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import ObservationError, PolicyError

Conditioning: TypeAlias = Literal["inpaint", "trained"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the robot senses at one instant.

    Attributes:
        stamp_ns: The instant that every stream was aligned to.
        task: The instruction in natural language.
        images: Camera name to uint8 [H, W, 3], RGB. A missing camera is absent, never zero-filled.
        state: float32 [S], in the order of the contract's `state_names`; rad and m.
        depths: Depth camera name to float32 [H, W]: metres, 0 where nothing was measured.
        oldest_age_ns: Age of the oldest stream at `stamp_ns`.
        camera_skew_ns: Largest difference between the stamps of two cameras.
        earlier: The observations before, oldest first, for policies that read several moments;
            fewer than such a policy reads where nothing was seen yet.
    """

    stamp_ns: int
    task: str
    images: Mapping[str, NDArray[np.uint8]]
    state: NDArray[np.float32]
    oldest_age_ns: int = 0
    camera_skew_ns: int = 0
    depths: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    earlier: tuple[Observation, ...] = ()

    def __post_init__(self) -> None:
        for name, image in self.images.items():
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ObservationError(
                    f"camera '{name}': expected uint8 [H, W, 3], got {image.dtype} {image.shape}"
                )
        for name, depth in self.depths.items():
            if depth.dtype != np.float32 or depth.ndim != 2:
                raise ObservationError(
                    f"depth camera '{name}': expected float32 [H, W], got {depth.dtype} "
                    f"{depth.shape}"
                )
        if self.state.ndim != 1 or not np.isfinite(self.state).all():
            raise ObservationError(f"state: expected finite [S], got {self.state!r}")
        object.__setattr__(self, "images", MappingProxyType(dict(self.images)))
        object.__setattr__(self, "depths", MappingProxyType(dict(self.depths)))

    def without_cameras(self, names: Collection[str]) -> Observation:
        """The same instant, as a robot without those cameras would sense it."""
        images = {name: image for name, image in self.images.items() if name not in names}
        depths = {name: depth for name, depth in self.depths.items() if name not in names}
        earlier = tuple(past.without_cameras(names) for past in self.earlier)
        return dataclasses.replace(self, images=images, depths=depths, earlier=earlier)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionChunk:
    """Targets for the next `T` action steps.

    Attributes:
        stamp_ns: Time of the observation that the chunk was inferred from.
        chunk_id: Counts up per policy.
        names: A names in the order of the columns, joints first, gripper last.
        dt_s: Time between two rows; row k is the target at `stamp_ns + (k + 1) * dt_s`.
        positions: float64 [T, A], absolute; rad and m.

    Raises:
        PolicyError: a value is not finite, or the shape does not fit the names.
    """

    stamp_ns: int
    chunk_id: int
    names: tuple[str, ...]
    dt_s: float
    positions: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.positions.ndim != 2 or self.positions.shape[1] != len(self.names):
            raise PolicyError(
                f"action chunk {self.chunk_id}: expected [T, {len(self.names)}], "
                f"got {self.positions.shape}"
            )
        bad = ~np.isfinite(self.positions)
        if bad.any():
            step, column = (int(i) for i in np.argwhere(bad)[0])
            raise PolicyError(
                f"action chunk {self.chunk_id}: '{self.names[column]}' at step {step} is "
                f"{self.positions[step, column]}",
                mend="nothing was sent; check the checkpoint with `fastvla models show`",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkPrefix:
    """What is planned already for the first rows of the next chunk, and how far that is fixed.

    Attributes:
        names: A names in the order of the columns.
        positions: float64 [P, A], absolute; rad and m. Row k is the plan at the time of row k of
            the chunk that is asked for: the observation's stamp + (k + 1) * dt.
        frozen: The first rows, which will have been executed when the chunk arrives; 0 to P. The
            others are wishes that fade.
        conditioning: How a flow policy meets it: "inpaint" guides the flow towards it and needs no
            training; "trained" gives the frozen rows as input to a policy that was trained so.

    Raises:
        PolicyError: no rows, a wrong shape, a value that is not finite, or `frozen` out of range.
    """

    names: tuple[str, ...]
    positions: NDArray[np.float64]
    frozen: int
    conditioning: Conditioning

    def __post_init__(self) -> None:
        rows, columns = (*self.positions.shape, 0)[:2]
        usable = rows and columns == len(self.names) and self.positions.ndim == 2
        if not usable or not np.isfinite(self.positions).all():
            raise PolicyError(
                f"chunk prefix: expected finite [P, {len(self.names)}] with P above 0, got "
                f"{self.positions!r}"
            )
        if not 0 <= self.frozen <= rows:
            raise PolicyError(f"chunk prefix: {self.frozen} frozen rows of {rows}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JointTrajectoryCommand:
    """One point for the arm (and gripper), to be reached `duration_s` from `stamp_ns` on.

    Attributes:
        positions, velocities: float64 [A]; rad, m, rad/s, m/s. No velocities: the sender says
            nothing about them.
    """

    stamp_ns: int
    names: tuple[str, ...]
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64] | None
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardPositionCommand:
    """Bare positions in the controller's own joint order, float64 [A]."""

    stamp_ns: int
    positions: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class JointJogCommand:
    """Velocities of the arm's joints, float64 [J] in rad/s or m/s, good for `duration_s`."""

    stamp_ns: int
    names: tuple[str, ...]
    velocities: NDArray[np.float64]
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TwistCommand:
    """The tool's velocity [m/s] and rate of turn [rad/s], float64 [3] each.

    Both belong to the tool's origin and are given in the axes of `frame`.
    """

    stamp_ns: int
    frame: str
    linear: NDArray[np.float64]
    angular: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class GripperCommand:
    """Opening of one finger [m] and the largest effort [N]."""

    stamp_ns: int
    name: str
    position: float
    max_effort: float = field(default=0.0)


ArmCommand: TypeAlias = (
    JointTrajectoryCommand | ForwardPositionCommand | JointJogCommand | TwistCommand
)
Command: TypeAlias = ArmCommand | GripperCommand
