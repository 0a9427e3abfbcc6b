"""The streams of a recording, fed into the same buffers through the same decoding as live."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastvla_core.bags.writer import absolute
from fastvla_core.errors import BagError, MessageError
from fastvla_core.robot.align import (
    StaleStreamError,
    camera_sample,
    observe,
    required_streams,
)
from fastvla_core.robot.buffers import JOINT_STATES, Sample, StreamBuffers
from fastvla_core.robot.contract import CameraSpec, RobotContract
from fastvla_core.robot.joints import decode_joint_state, pick_stamp
from fastvla_core.robot.packed import Size
from fastvla_core.types import Observation
from training.bags import messages
from training.bags.clocks import ClockTally
from training.bags.frames import PendingFrame, check_message, whole_size
from training.bags.labels import CommandTrack, IncrementTrack, header_ns
from training.bags.recording import Recording
from training.bags.storage import RawMessage
from training.bags.writer import EXPERT_TOPIC

# An instant is judged once every required stream has passed it, or at the latest after this
# time, which the buffers must cover.
_PATIENCE_NS = 1_000_000_000
_CAMERA_SAMPLES, _JOINT_SAMPLES = 96, 4096

Sizes: TypeAlias = Callable[[CameraSpec], Size]
"""In which height and width a camera's pictures are looked at: their own, or a smaller one."""


@dataclass(frozen=True, slots=True)
class _Unpacked:
    stamp_ns: int
    frame: PendingFrame
    pixels: NDArray[Any]
    is_whole: bool


class BagStreams:
    """Feeds a recording into stream buffers in the order of receipt.

    Args:
        increments: Commands say by how much to move.
        sizes: Of the pictures that are looked at. A small one is unpacked as such, or made while
            the large one is still in the processor's caches, whose memory the next one then takes.

    Attributes:
        buffers: As on the robot. Pictures are unpacked when they are looked at (`unpack`).
        track: The commands read so far.
        bad: Topic to number of messages that broke a rule and were dropped, as they are live.
        late: Topic to number of messages that came twice or too late to be kept.
        unused: Topic to number of accepted messages that no `unpack` has asked for.
        clocks: Topic to its header stamps against the times of receipt.
        first_error: The first message that broke a rule.

    Raises:
        BagError: a required stream is not in the recording.
    """

    def __init__(
        self,
        bag: Recording,
        *,
        contract: RobotContract,
        increments: bool = False,
        sizes: Sizes = whole_size,
    ) -> None:
        self._bag, self._contract = bag, contract
        self.buffers = StreamBuffers(
            capacity=_CAMERA_SAMPLES, capacities={JOINT_STATES: _JOINT_SAMPLES}
        )
        self.track: CommandTrack | IncrementTrack = (
            IncrementTrack(contract) if increments else CommandTrack(contract)
        )
        self.bad: Counter[str] = Counter()
        self.late: Counter[str] = Counter()
        self.unused: Counter[str] = Counter()
        self.clocks: defaultdict[str, ClockTally] = defaultdict(ClockTally)
        self.first_error: MessageError | None = None
        self._required = required_streams(contract)
        self._cameras = {
            name: camera
            for camera in contract.observed_cameras
            if (name := _find_camera(bag, camera)) is not None
        }
        self._joints = find_topic(bag, contract.joint_states.topic)
        self._commands = find_topic(bag, EXPERT_TOPIC) or find_topic(bag, contract.outputs.command)
        for camera in contract.observed_cameras:
            if camera.required and camera not in self._cameras.values():
                raise self._missing(f"camera '{camera.name}'", camera.topic)
        if self._joints is None:
            raise self._missing("the joint states", contract.joint_states.topic)
        self._sizes = {camera.name: sizes(camera) for camera in self._cameras.values()}
        self._topics = {camera.name: topic for topic, camera in self._cameras.items()}
        self._topics[JOINT_STATES] = self._joints
        self._used: dict[str, int] = {}
        self._unpacked: dict[str, _Unpacked] = {}
        self._first: dict[str, int] = {}
        self._newest_ns = 0

    def require_commands(self) -> None:
        """Raises BagError when the recording holds no commands."""
        if self._commands is None:
            raise self._missing("the commands", self._contract.outputs.command)

    def feed(self) -> Iterator[str]:
        """Take message after message; yields the stream of each sample that was accepted."""
        topics = {*self._cameras, self._joints, self._commands}
        for raw in self._bag.messages([name for name in topics if name]):
            try:
                if raw.topic == self._commands:
                    self.track.add(raw)
                    continue
                stream = self._push(raw)
            except MessageError as error:
                self._refuse(raw.topic, error)
                continue
            yield stream

    @property
    def start_ns(self) -> int | None:
        """The first instant at which every required stream has a sample."""
        if any(stream not in self._first for stream in self._required):
            return None
        return max(self._first[stream] for stream in self._required)

    @property
    def horizon_ns(self) -> int:
        """The latest instant that every required stream has reached."""
        return self.buffers.horizon_ns(self._required) or 0

    def settled(self, at_ns: int) -> bool:
        """Whether nothing that may still come can change what is seen at that instant."""
        # No stream is further than the newest of them.
        if self._newest_ns < at_ns:
            return False
        return self.horizon_ns >= at_ns or self._newest_ns >= at_ns + _PATIENCE_NS

    def unpack(self, at_ns: int) -> None:
        """Unpack the pictures that stand for an instant; those that are broken go, as live."""
        for camera in self._contract.observed_cameras:
            while sample := camera_sample(self.buffers, camera, at_ns=at_ns):
                self._use(camera.name, sample.stamp_ns)
                frame = sample.value
                if not isinstance(frame, PendingFrame):
                    break
                try:
                    pixels = frame.pixels(size=self._sizes[camera.name])
                except MessageError as error:
                    self.buffers.remove(camera.name, stamp_ns=sample.stamp_ns)
                    self._refuse(self._topics[camera.name], error)
                    continue
                self._show(camera, sample, pixels)
        if joints := self.buffers.hold(JOINT_STATES, at_ns=at_ns):
            self._use(JOINT_STATES, joints.stamp_ns)

    def jpeg_files(self, images: Mapping[str, NDArray[np.uint8]]) -> dict[str, NDArray[np.uint8]]:
        """The files that those pictures, as they were just seen, were unpacked from, where JPEG."""
        shown = {
            name: self._unpacked[name].frame.jpeg()
            for name, pixels in images.items()
            if name in self._unpacked
            and self._unpacked[name].pixels is pixels
            and self._unpacked[name].is_whole
        }
        return {name: file for name, file in shown.items() if file is not None}

    def _show(self, camera: CameraSpec, sample: Sample, pixels: NDArray[Any]) -> None:
        """Put pixels in the place of a packed picture, and pack the one before them again.

        Were all of a buffer kept, each would be written to memory that no cache holds and that the
        system has yet to clear: that cost a third of the time.
        """
        stream = camera.name
        before = self._unpacked.get(stream)
        if before is not None:
            self.buffers.replace(stream, stamp_ns=before.stamp_ns, value=before.frame)
        self.buffers.replace(stream, stamp_ns=sample.stamp_ns, value=pixels)
        self._unpacked[stream] = _Unpacked(
            sample.stamp_ns,
            sample.value,
            pixels,
            is_whole=self._sizes[stream] == whole_size(camera),
        )

    def _use(self, stream: str, stamp_ns: int) -> None:
        if self._used.get(stream) != stamp_ns:
            self._used[stream] = stamp_ns
            self.unused[self._topics[stream]] -= 1

    def _refuse(self, topic: str, error: MessageError) -> None:
        self.bad[topic] += 1
        self.first_error = self.first_error or error

    def _push(self, raw: RawMessage) -> str:
        message = messages.from_cdr(raw.data, type_name=raw.type)
        header = header_ns(message)
        stamp_ns = pick_stamp(self._contract, header_ns=header, receive_ns=raw.stamp_ns)
        camera = self._cameras.get(raw.topic)
        if camera is not None:
            check_message(camera, message, type_name=raw.type)
            stream, value = camera.name, PendingFrame(camera, message)
        else:
            stream = JOINT_STATES
            value = decode_joint_state(
                self._contract, names=message.name, positions=message.position
            )
        self.clocks[raw.topic].add(receive_ns=raw.stamp_ns, header_ns=header)
        if self.buffers.push(stream, stamp_ns=stamp_ns, value=value):
            self.unused[raw.topic] += 1
        else:
            self.late[raw.topic] += 1
        self._first.setdefault(stream, stamp_ns)
        self._newest_ns = max(self._newest_ns, stamp_ns)
        return stream

    def _missing(self, what: str, topic: str) -> BagError:
        there = ", ".join(n for n, info in self._bag.topics.items() if info.count) or "none"
        return BagError(
            f"{self._bag.path}: holds nothing of {what} on '{absolute(topic)}'; "
            f"its topics: {there}",
            mend="record that topic, or correct the topic in the robot contract",
        )


def observe_at(
    bag: Recording, *, contract: RobotContract, task: str, at_ns: Iterable[int]
) -> Iterator[Observation | StaleStreamError]:
    """What the policy saw, or would have seen, at those instants; byte-equal to live.

    Args:
        at_ns: Instants in ascending order, such as the stamps of recorded action chunks.

    Raises:
        BagError: a required stream is not in the recording.
    """
    streams = BagStreams(bag, contract=contract)
    waiting = deque(at_ns)

    def look() -> Observation | StaleStreamError:
        at_ns = waiting.popleft()
        streams.unpack(at_ns)
        try:
            return observe(streams.buffers, contract=contract, task=task, at_ns=at_ns)
        except StaleStreamError as error:
            return error

    for _ in streams.feed():
        while waiting and streams.settled(waiting[0]):
            yield look()
    while waiting:
        yield look()


def find_topic(bag: Recording, topic: str) -> str | None:
    """The bag's name of a contract's topic: below the root, or below one namespace only."""
    name = absolute(topic)
    filled = [n for n, info in bag.topics.items() if info.count]
    if name in filled:
        return name
    below = [n for n in filled if n.endswith(name)]
    return below[0] if len(below) == 1 else None


def _find_camera(bag: Recording, camera: CameraSpec) -> str | None:
    found = (find_topic(bag, topic) for topic in camera.transport_topics)
    return next((name for name in found if name is not None), None)
