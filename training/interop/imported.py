"""What every import shares: columns by name, labels, limits, one file per episode."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvla_core import __version__
from fastvla_core.errors import DatasetError, DependencyError
from fastvla_core.robot.contract import RobotContract
from training.bags.episodes import ActionSource, EpisodeTable
from training.cache_files import CacheEntry
from training.cache_folder import EPISODES, source_key, split_key
from training.cache_shard import CachedEpisode, Pictures, ShardWriter

# More than this share of values outside of a joint's limits is no noise: degrees, another robot.
_OUTSIDE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """How a foreign data set becomes a cache.

    Attributes:
        cameras: The contract's camera to the key of its pictures; cameras that are not named are
            looked for under their own name.
        rate_hz: Steps per second; None takes the data set's own.
        action: Where labels come from: its actions as absolute targets (`command`), as changes of
            the state (`delta`), or the state one step later (`next_state`).
        instruction: Replaces the recorded one.
        rotate_180: Pictures are stored upside down, as LIBERO's are.
    """

    contract: RobotContract
    cameras: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rate_hz: float | None = None
    action: ActionSource = "command"
    instruction: str | None = None
    pictures: Pictures = dataclasses.field(default_factory=Pictures)
    rotate_180: bool = False
    validation: float = 0.02

    def __post_init__(self) -> None:
        known = [camera.name for camera in self.contract.policy_cameras]
        for name in self.cameras:
            if name not in known:
                raise DatasetError(
                    f"'{name}' is no camera of the contract", mend=f"name one of {', '.join(known)}"
                )

    def settings(self, kind: str, *, rate_hz: float) -> dict[str, Any]:
        """Plain data that decides the content of the cache."""
        return {
            "version": __version__,
            "kind": kind,
            **dataclasses.asdict(self),
            "contract": self.contract.to_dict(),
            "rate_hz": rate_hz,
        }


def require(package: str) -> Any:
    """An optional package.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise DependencyError(
            f"{package} is not installed", mend="pip install 'fastvla[interop]'"
        ) from error


def columns_by_name(
    contract: RobotContract, *, names: Sequence[str] | None, width: int, where: str
) -> list[int]:
    """Which column holds each of the contract's joints; without names, their order counts.

    Raises:
        DatasetError: a joint is missing, or the number of columns differs where there is no name.
    """
    wanted = list(contract.state_names)
    if names is None:
        if width != len(wanted):
            raise DatasetError(
                f"{where}: has {width} columns without names, the contract {len(wanted)} joints",
                mend="give a contract of this robot",
            )
        return list(range(width))
    renamed = dict(contract.joint_states.names)
    # LeRobot's own robots call a joint's position `<joint>.pos`.
    plain = [
        renamed.get(n, renamed.get(n.removesuffix(".pos"), n.removesuffix(".pos"))) for n in names
    ]
    missing = [name for name in wanted if name not in plain]
    if missing:
        raise DatasetError(
            f"{where}: holds {', '.join(names)}, but no {', '.join(missing)}",
            mend="map its names to the contract's in joint_states.names",
        )
    return [plain.index(name) for name in wanted]


def subsampled(fps: float, rate_hz: float | None, *, where: str) -> tuple[float, int]:
    """The rate of the steps and how many of the data set's frames one step takes.

    Raises:
        DatasetError: the rate is no whole part of the data set's.
    """
    if rate_hz is None:
        return fps, 1
    stride = round(fps / rate_hz)
    if stride < 1 or abs(stride * rate_hz - fps) > 1e-6 * fps:
        raise DatasetError(
            f"{where}: has {fps:g} frames per second, which {rate_hz:g} does not divide",
            mend=f"give --rate {fps:g} divided by a whole number",
        )
    return rate_hz, stride


def labels(
    state: NDArray[np.float32],
    action: NDArray[np.float32] | None,
    *,
    stride: int,
    options: ImportOptions,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The frames [T] that become steps, and their absolute targets float32 [T, A].

    Args:
        state: [F, S] of all frames of an episode.
        action: [F, A], the action taken at each frame.
    """
    if options.action == "next_state" or action is None:
        frames = np.arange(0, len(state) - stride, stride)
        return frames, state[frames + stride]
    # The last action before the next step is what the robot is told to be at by then.
    frames = np.arange(0, len(state) - stride + 1, stride)
    if options.action == "command":
        return frames, action[frames + stride - 1]
    sums = np.concatenate([np.zeros((1, action.shape[1])), np.cumsum(action, axis=0)])
    target = state[frames] + sums[frames + stride] - sums[frames]
    if options.contract.gripper is not None:
        target[:, -1] = action[frames + stride - 1, -1]
    return frames, target.astype(np.float32)


def keep_episode(
    entry: CacheEntry,
    *,
    number: int,
    path: Path,
    options: ImportOptions,
    rate_hz: float,
    instruction: str,
    images: Iterable[Mapping[str, NDArray[np.uint8]]],
    state: NDArray[np.float32],
    label: NDArray[np.float32],
) -> CachedEpisode:
    """Write one episode; demonstrations that were published count as successes."""
    steps = len(state)
    if not steps:
        return CachedEpisode(skipped=f"episode {number}: has no step", failed=True)
    for values, name in ((state, "state"), (label, "action")):
        if not np.isfinite(values).all():
            return CachedEpisode(skipped=f"episode {number}: its {name} is not finite", failed=True)
    contract = options.contract
    file = f"{EPISODES}/{source_key(Path(entry.source))}_{number:04d}.episode"
    with ShardWriter(path / file, contract=contract, pictures=options.pictures) as writer:
        present = np.zeros((steps, len(contract.policy_cameras)), bool)
        given = 0
        turn = -1 if options.rotate_180 else 1
        for given, pictures in enumerate(images, 1):
            writer.add({k: v[::turn, ::turn] for k, v in pictures.items()})
            present[given - 1] = [c.name in pictures for c in contract.policy_cameras]
        if given != steps:
            return CachedEpisode(
                skipped=f"episode {number}: {given} pictures for {steps} steps", failed=True
            )
        table = EpisodeTable(
            instruction=instruction,
            outcome="success",
            stamp_ns=np.asarray([round(k * 10**9 / rate_hz) for k in range(steps)], np.int64),
            tick=np.arange(steps),
            row=np.arange(steps),
            image_present=present,
            state=state,
            label=label,
            dropped={},
            bad_messages={},
            late_messages={},
            unused_messages={},
        )
        size, digest = writer.finish(table)
    return CachedEpisode(
        file=file,
        bytes=size,
        sha256=digest,
        frames=steps,
        instruction=instruction,
        outcome="success",
        notes=_limit_notes(contract, state),
        split_key=split_key(entry.sha256, number),
    )


def _limit_notes(contract: RobotContract, state: NDArray[np.float32]) -> tuple[str, ...]:
    limits = {j.name: (j.lower, j.upper) for j in contract.joints}
    if contract.gripper is not None:
        limits[contract.gripper.name] = (contract.gripper.lower, contract.gripper.upper)
    notes = []
    for column, name in enumerate(contract.state_names):
        lower, upper = limits[name]
        slack = 0.05 * (upper - lower)
        values = state[:, column]
        outside = float(((values < lower - slack) | (values > upper + slack)).mean())
        if outside > _OUTSIDE:
            notes.append(
                f"'{name}' is outside of its limits {lower:g} to {upper:g} (rad or m); are these "
                "degrees, or another robot?"
            )
    return tuple(notes)
