"""A recording as aligned steps: the same decoding, buffers and `observe` as on the robot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import BagError, MessageError
from fastvla_core.robot.align import StaleStreamError, observe, required_streams
from fastvla_core.robot.buffers import JOINT_STATES, StreamBuffers
from fastvla_core.robot.contract import CameraSpec, RobotContract
from fastvla_core.robot.decode import (
    check_camera,
    decode_compressed,
    decode_image,
    decode_joint_state,
    pick_stamp,
)
from fastvla_core.types import Observation
from training.bags import messages
from training.bags.labels import SNAP_NS, CommandTrack, header_ns
from training.bags.reader import Bag
from training.bags.storage import RawMessage
from training.bags.writer import EXPERT_TOPIC

# A tick is judged once every required stream has passed it, or at the latest after this time,
# which the buffers below must cover.
_PATIENCE_NS = 1_000_000_000
_CAMERA_SAMPLES, _JOINT_SAMPLES = 96, 4096


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
    """Feeds the buffers in order of receipt and observes at every tick that they have passed."""

    def __init__(self, bag: Bag, *, contract: RobotContract, rate_hz: float, task: str) -> None:
        self._bag, self._contract, self._task = bag, contract, task
        self._step_ns = 1e9 / rate_hz
        self._rate_hz = rate_hz
        self._buffers = StreamBuffers(
            capacity=_CAMERA_SAMPLES, capacities={JOINT_STATES: _JOINT_SAMPLES}
        )
        self._track = CommandTrack(contract)
        self._required = required_streams(contract)
        self._cameras = {
            name: camera
            for camera in contract.policy_cameras
            if (name := _find_topic(bag, camera.topic)) is not None
        }
        self._joints = _find_topic(bag, contract.joint_states.topic)
        self._commands = _find_topic(bag, EXPERT_TOPIC) or _find_topic(
            bag, contract.outputs.command
        )
        self._check_streams()
        self._first: dict[str, int] = {}
        self._newest_ns = 0
        self._start_ns: int | None = None
        self._tick = 0
        self._ticks: list[int] = []
        self._observations: list[Observation] = []
        self._dropped: Counter[str] = Counter()
        self._bad: Counter[str] = Counter()
        self._first_error: MessageError | None = None

    def read(self) -> None:
        """Take every message of the recording."""
        topics = {*self._cameras, self._joints, self._commands} - {None}
        for raw in self._bag.messages([name for name in topics if name]):
            try:
                self._take(raw)
            except MessageError as error:
                self._bad[raw.topic] += 1
                self._first_error = self._first_error or error
        self._observe_rest()

    def result(self) -> EpisodeSteps:
        """The steps that are complete, with their labels."""
        stamps = np.asarray([o.stamp_ns for o in self._observations], np.int64)
        ahead = stamps + round(self._step_ns)
        gap_ns = max(round(self._contract.watchdog.timeout_s * 1e9), round(2.5 * self._step_ns))
        label, usable = self._track.sample(ahead, max_gap_ns=gap_ns)
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
            bad_messages=dict(self._bad),
        )

    def _nothing(self) -> BagError:
        if self._first_error is not None:
            bad = sum(self._bad.values())
            return BagError(
                f"{self._bag.path}: no step is complete; {bad} messages were refused, the first: "
                f"{self._first_error.message}",
                mend=self._first_error.mend,
            )
        reasons = ", ".join(f"{n} steps: {reason}" for reason, n in (+self._dropped).items())
        return BagError(
            f"{self._bag.path}: no step is complete ({reasons or 'the streams never overlap'})",
            mend="`fastvla data inspect` shows rates and gaps of every topic",
        )

    def _check_streams(self) -> None:
        for camera in self._contract.policy_cameras:
            if camera.required and camera not in self._cameras.values():
                raise self._missing(f"camera '{camera.name}'", camera.topic)
        if self._joints is None:
            raise self._missing("the joint states", self._contract.joint_states.topic)
        if self._commands is None:
            raise self._missing("the commands", self._contract.outputs.command)

    def _missing(self, what: str, topic: str) -> BagError:
        there = ", ".join(n for n, info in self._bag.topics.items() if info.count) or "none"
        return BagError(
            f"{self._bag.path}: holds nothing of {what} on '{messages.absolute(topic)}'; "
            f"its topics: {there}",
            mend="record that topic, or correct the topic in the robot contract",
        )

    def _take(self, raw: RawMessage) -> None:
        if raw.topic == self._commands:
            self._track.add(raw)
            return
        stream, stamp_ns = self._push(raw)
        self._first.setdefault(stream, stamp_ns)
        self._newest_ns = max(self._newest_ns, stamp_ns)
        self._observe_passed()

    def _push(self, raw: RawMessage) -> tuple[str, int]:
        message = messages.from_cdr(raw.data, type_name=raw.type)
        stamp_ns = pick_stamp(self._contract, header_ns=header_ns(message), receive_ns=raw.stamp_ns)
        camera = self._cameras.get(raw.topic)
        if camera is not None:
            stream, value = camera.name, _pixels(message, raw.type, camera)
        else:
            stream = JOINT_STATES
            value = decode_joint_state(
                self._contract, names=message.name, positions=message.position
            )
        self._buffers.push(stream, stamp_ns=stamp_ns, value=value)
        return stream, stamp_ns

    def _tick_ns(self, start_ns: int) -> int:
        return start_ns + round(self._tick * 10**9 / self._rate_hz)

    def _observe_passed(self) -> None:
        if self._start_ns is None:
            if any(stream not in self._first for stream in self._required):
                return
            self._start_ns = max(self._first[stream] for stream in self._required)
        while True:
            at_ns = self._tick_ns(self._start_ns)
            behind = min(self._buffers.newest_ns(s) or 0 for s in self._required)
            if behind < at_ns + SNAP_NS and self._newest_ns < at_ns + _PATIENCE_NS:
                return
            self._observe(at_ns)

    def _observe_rest(self) -> None:
        if self._start_ns is None:
            return
        end_ns = min(self._buffers.newest_ns(s) or 0 for s in self._required)
        while (at_ns := self._tick_ns(self._start_ns)) <= end_ns + SNAP_NS:
            self._observe(at_ns)

    def _observe(self, at_ns: int) -> None:
        # A sample that is rounding behind the tick belongs to it.
        held = [self._buffers.hold(s, at_ns=at_ns + SNAP_NS) for s in self._required]
        at_ns = max([at_ns, *(sample.stamp_ns for sample in held if sample)])
        try:
            observation = observe(
                self._buffers, contract=self._contract, task=self._task, at_ns=at_ns
            )
            self._observations.append(observation)
            self._ticks.append(self._tick)
        except StaleStreamError as error:
            self._dropped[f"{error.stream} stale"] += 1
        self._tick += 1


def _pixels(message: Any, type_name: str, camera: CameraSpec) -> NDArray[np.uint8]:
    where = f"camera '{camera.name}'"
    if type_name == messages.COMPRESSED_IMAGE:
        image = decode_compressed(message.data, format=message.format, where=where)
        check_camera(camera, width=image.shape[1], height=image.shape[0])
        return image
    if type_name != messages.IMAGE:
        raise BagError(
            f"{where}: '{camera.topic}' holds {type_name}",
            mend=f"record {messages.IMAGE} or {messages.COMPRESSED_IMAGE}",
        )
    check_camera(camera, width=message.width, height=message.height, encoding=message.encoding)
    return decode_image(
        message.data,
        width=message.width,
        height=message.height,
        encoding=message.encoding,
        step=message.step,
        is_bigendian=message.is_bigendian,
        where=where,
    )


def _stack(observations: list[Observation], camera: CameraSpec) -> NDArray[np.uint8]:
    blank = np.zeros((camera.height, camera.width, 3), np.uint8)
    return np.stack([o.images.get(camera.name, blank) for o in observations])


def _find_topic(bag: Bag, topic: str) -> str | None:
    """The bag's name of a contract's topic: below the root, or below one namespace only."""
    name = messages.absolute(topic)
    filled = [n for n, info in bag.topics.items() if info.count]
    if name in filled:
        return name
    below = [n for n in filled if n.endswith(name)]
    return below[0] if len(below) == 1 else None


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
