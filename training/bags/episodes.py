"""A recording as aligned steps: the same decoding, buffers and `observe` as on the robot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import BagError
from fastvla_core.robot.align import StaleStreamError, observe, required_streams
from fastvla_core.robot.contract import CameraSpec, RobotContract
from fastvla_core.types import Observation
from training.bags.labels import SNAP_NS
from training.bags.reader import Bag
from training.bags.streams import BagStreams


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSteps:
    """One episode at the policy's rate; T steps, S states, A actions.

    Attributes:
        outcome: How it ended, or None when the recording does not say.
        stamp_ns: int64 [T], the instant of each observation.
        tick: int64 [T], counts policy steps; a jump is a hole in the recording.
        images: Camera to uint8 [T, H, W, 3], RGB; blank where `image_present` is False.
        image_present: bool [T, cameras], in the order of `images`.
        state: float32 [T, S].
        label: float32 [T, A], the command target at `stamp_ns` plus one step.
        dropped: Reason to number of steps that were left out.
        bad_messages: Topic to number of messages that broke a rule; live, they are dropped too.
    """

    instruction: str
    outcome: str | None
    stamp_ns: NDArray[np.int64]
    tick: NDArray[np.int64]
    images: Mapping[str, NDArray[np.uint8]]
    image_present: NDArray[np.bool_]
    state: NDArray[np.float32]
    label: NDArray[np.float32]
    dropped: Mapping[str, int]
    bad_messages: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.stamp_ns)


def episode_steps(
    bag: Bag,
    *,
    contract: RobotContract,
    rate_hz: float = 10.0,
    instruction: str | None = None,
) -> EpisodeSteps:
    """Align a recording at the policy's rate.

    Args:
        instruction: Replaces the recorded one; needed when the recording has none.

    Raises:
        BagError: a stream is missing, or no step is complete; names the recording, the stream
            and the mend.
    """
    task = instruction if instruction is not None else bag.instruction
    if not task or not task.strip():
        raise BagError(
            f"{bag.path}: does not say what the task was",
            mend="give it with `--instruction`, or record with `fastvla record --task TEXT`",
        )
    _check_contract(bag, contract)
    stepper = _Stepper(bag, contract=contract, rate_hz=rate_hz, task=task)
    stepper.read()
    return stepper.result()


class _Stepper:
    """Observes at every tick of the policy's clock that the streams have passed."""

    def __init__(self, bag: Bag, *, contract: RobotContract, rate_hz: float, task: str) -> None:
        self._bag, self._contract, self._task = bag, contract, task
        self._rate_hz = rate_hz
        self._required = required_streams(contract)
        self._streams = BagStreams(bag, contract=contract)
        self._streams.require_commands()
        self._tick = 0
        self._ticks: list[int] = []
        self._observations: list[Observation] = []
        self._dropped: Counter[str] = Counter()

    def read(self) -> None:
        """Take every message of the recording."""
        streams = self._streams
        start_ns = None
        for _ in streams.feed():
            if start_ns is None:
                start_ns = streams.start_ns
            while start_ns is not None and streams.settled(self._tick_ns(start_ns) + SNAP_NS):
                self._observe(self._tick_ns(start_ns))
        if start_ns is not None:
            while self._tick_ns(start_ns) <= streams.horizon_ns + SNAP_NS:
                self._observe(self._tick_ns(start_ns))

    def result(self) -> EpisodeSteps:
        """The steps that are complete, with their labels."""
        step_ns = 1e9 / self._rate_hz
        stamps = np.asarray([o.stamp_ns for o in self._observations], np.int64)
        gap_ns = max(round(self._contract.watchdog.timeout_s * 1e9), round(2.5 * step_ns))
        label, usable = self._streams.track.sample(stamps + round(step_ns), max_gap_ns=gap_ns)
        self._dropped["no command"] += int((~usable).sum())
        kept = [o for o, use in zip(self._observations, usable) if use]
        if not kept:
            raise self._nothing()
        present = [[c.name in o.images for c in self._contract.policy_cameras] for o in kept]
        return EpisodeSteps(
            instruction=self._task,
            outcome=self._bag.outcome,
            stamp_ns=stamps[usable],
            tick=np.asarray(self._ticks, np.int64)[usable],
            images={c.name: _stack(kept, c) for c in self._contract.policy_cameras},
            image_present=np.asarray(present, bool),
            state=np.stack([o.state for o in kept]),
            label=label[usable],
            dropped=dict(+self._dropped),
            bad_messages=dict(self._streams.bad),
        )

    def _nothing(self) -> BagError:
        error = self._streams.first_error
        if error is not None:
            return BagError(
                f"{self._bag.path}: no step is complete; {sum(self._streams.bad.values())} "
                f"messages were refused, the first: {error.message}",
                mend=error.mend,
            )
        reasons = ", ".join(f"{n} steps: {reason}" for reason, n in (+self._dropped).items())
        return BagError(
            f"{self._bag.path}: no step is complete ({reasons or 'the streams never overlap'})",
            mend="`fastvla data inspect` shows rates and gaps of every topic",
        )

    def _tick_ns(self, start_ns: int) -> int:
        return start_ns + round(self._tick * 10**9 / self._rate_hz)

    def _observe(self, at_ns: int) -> None:
        buffers = self._streams.buffers
        # A sample that is rounding behind the tick belongs to it.
        held = [buffers.hold(stream, at_ns=at_ns + SNAP_NS) for stream in self._required]
        at_ns = max([at_ns, *(sample.stamp_ns for sample in held if sample)])
        try:
            observation = observe(buffers, contract=self._contract, task=self._task, at_ns=at_ns)
            self._observations.append(observation)
            self._ticks.append(self._tick)
        except StaleStreamError as error:
            self._dropped[f"{error.stream} stale"] += 1
        self._tick += 1


def _stack(observations: list[Observation], camera: CameraSpec) -> NDArray[np.uint8]:
    blank = np.zeros((camera.height, camera.width, 3), np.uint8)
    return np.stack([o.images.get(camera.name, blank) for o in observations])


def _check_contract(bag: Bag, contract: RobotContract) -> None:
    if bag.info.get("fastvla.contract_hash") == contract.hash():
        return
    recorded = bag.contract
    if recorded is None:
        return
    differences = []
    if set(recorded.state_names) != set(contract.state_names):
        differences.append(
            f"joints {', '.join(recorded.state_names)} there, "
            f"{', '.join(contract.state_names)} here"
        )
    theirs = {c.name: (c.width, c.height, c.encoding) for c in recorded.cameras}
    for camera in contract.policy_cameras:
        ours = (camera.width, camera.height, camera.encoding)
        if camera.name in theirs and theirs[camera.name] != ours:
            differences.append(f"camera '{camera.name}': {theirs[camera.name]} there, {ours} here")
    if differences:
        raise BagError(
            f"{bag.path}: was recorded with another robot contract: {'; '.join(differences)}",
            mend="give the contract that it was recorded with (`--contract`)",
        )
