"""A recording as aligned steps: the same decoding, buffers and `observe` as on the robot."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import BagError
from fastvla_core.robot.align import StaleStreamError, observe, required_streams
from fastvla_core.robot.contract import CameraSpec, RobotContract
from fastvla_core.robot.packed import Size
from fastvla_core.types import Observation
from training.bags.frames import whole_size
from training.bags.labels import SNAP_NS, IncrementTrack
from training.bags.recording import Recording
from training.bags.streams import BagStreams

ActionSource = Literal["command", "next_state", "delta"]
"""Where labels come from: commanded targets, the state one step later, or commanded increments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeTable:
    """The steps of one episode without their pictures; T steps, S states, A actions.

    Attributes:
        outcome: How it ended, or None when the recording does not say.
        stamp_ns: int64 [T], the instant of each observation.
        tick: int64 [T], counts policy steps; a jump is a hole in the recording.
        row: int64 [T], which of the pictures that the sink was given belong to the step.
        image_present: bool [T, cameras], in the contract's order.
        state: float32 [T, S].
        label: float32 [T, A], the command target at `stamp_ns` plus one step.
        dropped: Reason to number of steps that were left out.
        bad_messages: Topic to number of messages that broke a rule; live, they are dropped too.
        late_messages: Topic to number of messages that came twice or too late.
        unused_messages: Topic to number of good messages that no step looked at.
        notes: What is strange about the clocks, in words.
    """

    instruction: str
    outcome: str | None
    stamp_ns: NDArray[np.int64]
    tick: NDArray[np.int64]
    row: NDArray[np.int64]
    image_present: NDArray[np.bool_]
    state: NDArray[np.float32]
    label: NDArray[np.float32]
    dropped: Mapping[str, int]
    bad_messages: Mapping[str, int]
    late_messages: Mapping[str, int]
    unused_messages: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.stamp_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSteps(EpisodeTable):
    """One episode in memory.

    Attributes:
        images: Camera to uint8 [T, H, W, 3], RGB; blank where `image_present` is False.
    """

    images: Mapping[str, NDArray[np.uint8]]


class FrameSink(Protocol):
    """Takes the pictures of step after step, so that no recording has to fit into memory."""

    def size(self, camera: CameraSpec) -> Size:
        """In which height and width a camera's pictures will do."""
        ...

    def add(
        self, images: Mapping[str, NDArray[np.uint8]], *, files: Mapping[str, NDArray[np.uint8]]
    ) -> None:
        """Take the pictures of the next step by camera; one that is missing is absent.

        Args:
            files: The JPEG files that pictures were unpacked from, where there are any.
        """
        ...


def episode_steps(
    bag: Recording,
    *,
    contract: RobotContract,
    rate_hz: float = 10.0,
    instruction: str | None = None,
    action: ActionSource = "command",
) -> EpisodeSteps:
    """As `align_episode`, with the pictures in memory."""
    sink = _Frames()
    table = align_episode(
        bag, contract=contract, rate_hz=rate_hz, instruction=instruction, action=action, sink=sink
    )
    fields = {item.name: getattr(table, item.name) for item in dataclasses.fields(table)}
    kept = [sink.images[row] for row in table.row]
    return EpisodeSteps(**fields, images={c.name: _stack(kept, c) for c in contract.policy_cameras})


def align_episode(
    bag: Recording,
    *,
    contract: RobotContract,
    sink: FrameSink,
    rate_hz: float = 10.0,
    instruction: str | None = None,
    action: ActionSource = "command",
) -> EpisodeTable:
    """Align a recording at the policy's rate.

    Args:
        sink: Is given the pictures of every complete observation, also of those that turn out to
            have no label; `row` counts them.
        instruction: Replaces the recorded one; needed when the recording has none.
        action: Where labels come from; see `ActionSource`.

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
    stepper = _Stepper(bag, contract=contract, rate_hz=rate_hz, task=task, action=action, sink=sink)
    stepper.read()
    return stepper.result()


class _Frames:
    def __init__(self) -> None:
        self.images: list[Mapping[str, NDArray[np.uint8]]] = []

    def size(self, camera: CameraSpec) -> Size:
        return whole_size(camera)

    def add(
        self, images: Mapping[str, NDArray[np.uint8]], *, files: Mapping[str, NDArray[np.uint8]]
    ) -> None:
        del files
        self.images.append(images)


@dataclass(frozen=True, slots=True)
class _Step:
    """One observation without its pictures."""

    stamp_ns: int
    tick: int
    state: NDArray[np.float32]
    present: list[bool]


class _Stepper:
    """Observes at every tick of the policy's clock that the streams have passed."""

    def __init__(
        self,
        bag: Recording,
        *,
        contract: RobotContract,
        rate_hz: float,
        task: str,
        action: ActionSource,
        sink: FrameSink,
    ) -> None:
        self._bag, self._contract, self._task = bag, contract, task
        self._rate_hz, self._action, self._sink = rate_hz, action, sink
        self._required = required_streams(contract)
        self._streams = BagStreams(
            bag, contract=contract, increments=action == "delta", sizes=sink.size
        )
        if action != "next_state":
            self._streams.require_commands()
        self._tick = 0
        self._steps: list[_Step] = []
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

    def result(self) -> EpisodeTable:
        """The steps that are complete, with their labels."""
        if not self._steps:
            raise self._nothing()
        stamps = np.asarray([step.stamp_ns for step in self._steps], np.int64)
        ticks = np.asarray([step.tick for step in self._steps], np.int64)
        state = np.stack([step.state for step in self._steps])
        label, usable = self._labels(stamps, ticks, state)
        missing = "no next state" if self._action == "next_state" else "no command"
        self._dropped[missing] += int((~usable).sum())
        if not usable.any():
            raise self._nothing()
        streams = self._streams
        return EpisodeTable(
            instruction=self._task,
            outcome=self._bag.outcome,
            stamp_ns=stamps[usable],
            tick=ticks[usable],
            row=np.flatnonzero(usable),
            image_present=np.asarray([step.present for step in self._steps], bool)[usable],
            state=state[usable],
            label=label[usable],
            dropped=dict(+self._dropped),
            bad_messages=dict(streams.bad),
            late_messages=dict(streams.late),
            unused_messages=dict(+streams.unused),
            notes=self._clock_notes(),
        )

    def _labels(
        self, stamps: NDArray[np.int64], ticks: NDArray[np.int64], state: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        step_ns = 1e9 / self._rate_hz
        track = self._streams.track
        if self._action == "next_state":
            follows = np.append(np.diff(ticks) == 1, False)
            return np.roll(state, -1, axis=0), follows
        if isinstance(track, IncrementTrack):
            return track.sample(stamps, state=state, step_ns=round(step_ns))
        gap_ns = max(round(self._contract.watchdog.timeout_s * 1e9), round(2.5 * step_ns))
        return track.sample(stamps + round(step_ns), max_gap_ns=gap_ns)

    def _clock_notes(self) -> tuple[str, ...]:
        if self._contract.sync.stamp == "receive":
            return ()
        found = {topic: tally.report() for topic, tally in self._streams.clocks.items()}
        unstamped = [topic for topic, tally in self._streams.clocks.items() if tally.zero]
        return (
            *(
                f"the header clock of '{topic}' {clock.problem}; --clock receive aligns by the "
                "recorder's"
                for topic, clock in found.items()
                if clock is not None and clock.problem is not None
            ),
            *(f"headers of '{topic}' have no stamp; receipt counts" for topic in unstamped),
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
        notes = "".join(f"; {note}" for note in self._clock_notes())
        return BagError(
            f"{self._bag.path}: no step is complete "
            f"({reasons or 'the streams never overlap'}{notes})",
            mend="`fastvla data inspect` shows rates, gaps and clocks of every topic",
        )

    def _tick_ns(self, start_ns: int) -> int:
        return start_ns + round(self._tick * 10**9 / self._rate_hz)

    def _observe(self, at_ns: int) -> None:
        buffers = self._streams.buffers
        self._streams.unpack(at_ns + SNAP_NS)
        # A sample that is rounding behind the tick belongs to it.
        held = [buffers.hold(stream, at_ns=at_ns + SNAP_NS) for stream in self._required]
        at_ns = max([at_ns, *(sample.stamp_ns for sample in held if sample)])
        self._streams.unpack(at_ns)
        try:
            self._keep(observe(buffers, contract=self._contract, task=self._task, at_ns=at_ns))
        except StaleStreamError as error:
            self._dropped[f"{error.stream} stale"] += 1
        self._tick += 1

    def _keep(self, seen: Observation) -> None:
        present = [camera.name in seen.images for camera in self._contract.policy_cameras]
        self._steps.append(_Step(seen.stamp_ns, self._tick, seen.state, present))
        self._sink.add(seen.images, files=self._streams.jpeg_files(seen.images))


def _stack(frames: list[Mapping[str, NDArray[np.uint8]]], camera: CameraSpec) -> NDArray[np.uint8]:
    blank = np.zeros((camera.height, camera.width, 3), np.uint8)
    return np.stack([images.get(camera.name, blank) for images in frames])


def _check_contract(bag: Recording, contract: RobotContract) -> None:
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
