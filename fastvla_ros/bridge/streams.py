"""From messages to stream buffers to observations, the same way live and offline."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastvla_core.errors import MessageError
from fastvla_core.robot.align import (
    StaleStreamError,
    check_fresh,
    observe_with_past,
    required_streams,
)
from fastvla_core.robot.buffers import JOINT_STATES, StreamBuffers
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.joints import pick_stamp
from fastvla_core.types import Observation
from fastvla_ros.bridge.frozen import FrozenCameras
from fastvla_ros.bridge.images import read_camera
from fastvla_ros.bridge.joints import joint_state_to_state, stamp_ns

_CAMERA_CAPACITY = 8
_ARRIVALS = 64


@dataclass(frozen=True, slots=True)
class _Arrival:
    stamp_ns: int
    monotonic_ns: int


class StreamBridge:
    """Owns the buffers of one robot and takes its messages; safe to call from several threads.

    Attributes:
        buffers: The streams, by camera name and `joint_states`.
        dropped: Messages that broke a rule, by stream.
    """

    def __init__(self, contract: RobotContract) -> None:
        self.contract = contract
        cameras = [camera.name for camera in contract.observed_cameras]
        self.buffers = StreamBuffers(capacities=dict.fromkeys(cameras, _CAMERA_CAPACITY))
        self.dropped = dict.fromkeys([*cameras, JOINT_STATES], 0)
        self._required = required_streams(contract)
        self._frozen = FrozenCameras(joints=len(contract.joints))
        self._arrivals = {name: deque[_Arrival](maxlen=_ARRIVALS) for name in self.dropped}
        self._problems: dict[str, MessageError] = {}
        self._lock = threading.Lock()

    def on_image(self, camera: str, message: Any, *, receive_ns: int) -> None:
        """Take an Image, or a CompressedImage where the contract says so.

        Raises:
            MessageError: the message is wrong; it is counted, remembered and dropped.
        """
        arrived_ns = time.monotonic_ns()
        try:
            image = read_camera(self.contract.camera(camera), message)
        except MessageError as error:
            self._drop(camera, error)
            raise
        at_ns = self._stamp(message, receive_ns)
        self._frozen.on_image(camera, image=image, stamp_ns=at_ns)
        self._keep(camera, at_ns, image, arrived_ns)

    def on_joint_state(self, message: Any, *, receive_ns: int) -> None:
        """Take a JointState.

        Raises:
            MessageError: the message is wrong; it is counted, remembered and dropped.
        """
        arrived_ns = time.monotonic_ns()
        try:
            state = joint_state_to_state(message, contract=self.contract)
        except MessageError as error:
            self._drop(JOINT_STATES, error)
            raise
        self._frozen.on_state(state)
        self._keep(JOINT_STATES, self._stamp(message, receive_ns), state, arrived_ns)

    def observe(self, task: str, *, history_s: Sequence[float] = ()) -> Observation:
        """The newest observation that every required stream supports.

        Args:
            history_s: How long before are the observations that go with it, oldest first [s].
        Raises:
            StaleStreamError: a required stream is missing or too old; names it.
        """
        return observe_with_past(
            self.buffers, contract=self.contract, task=task, history_s=history_s
        )

    def reached(self, at_ns: int) -> bool:
        """Whether every required stream has a sample of `at_ns` or later."""
        horizon_ns = self.buffers.horizon_ns(self._required)
        return horizon_ns is not None and horizon_ns >= at_ns

    def check(self, *, now_ns: int) -> None:
        """See that every required stream is alive at `now_ns`.

        Raises:
            StaleStreamError: one is silent or frozen; says so, with what was wrong with its
                messages if there were any.
        """
        try:
            check_fresh(self.buffers, contract=self.contract, now_ns=now_ns)
        except StaleStreamError as error:
            problem = self.problem(error.stream)
            if problem is None:
                raise
            raise StaleStreamError(
                error.stream,
                f"stream '{error.stream}' has no usable message: {problem.message}",
                mend=problem.mend,
            ) from error
        for camera in self.contract.observed_cameras:
            frozen_s = self._frozen.frozen_for_ns(camera.name) * 1e-9
            if camera.required and frozen_s > camera.max_age_s:
                raise StaleStreamError(
                    camera.name,
                    f"camera '{camera.name}' is frozen: the same picture for {frozen_s:.2f} s "
                    "under new stamps while the robot moved",
                    mend="restart the camera's driver",
                )

    def problem(self, stream: str) -> MessageError | None:
        """What was wrong with the latest message of a stream; None when it was good."""
        with self._lock:
            return self._problems.get(stream)

    def start_fresh(self, *, history_s: Sequence[float] = ()) -> None:
        """Forget all samples, so that a new goal only sees frames that come after it.

        Args:
            history_s: See `observe`; so much is kept from now on.
        """
        self.buffers.keep(round(max(history_s, default=0.0) * 1e9))
        self.buffers.clear()

    def arrival_ns(self, observation: Observation) -> int | None:
        """When the last camera image of an observation came in (monotonic clock)."""
        used = {
            camera: sample.stamp_ns
            for camera in (*observation.images, *observation.depths)
            if (sample := self.buffers.hold(camera, at_ns=observation.stamp_ns)) is not None
        }
        with self._lock:
            times = [
                arrival.monotonic_ns
                for camera, used_ns in used.items()
                for arrival in self._arrivals[camera]
                if arrival.stamp_ns == used_ns
            ]
        return max(times, default=None)

    def rate_hz(self, stream: str) -> float:
        """How often good messages of a stream came in lately [1/s]; 0 when they stopped."""
        with self._lock:
            times = [a.monotonic_ns for a in self._arrivals[stream]]
        if len(times) < 2 or time.monotonic_ns() - times[-1] > 2_000_000_000:
            return 0.0
        return (len(times) - 1) / max((times[-1] - times[0]) * 1e-9, 1e-9)

    def _stamp(self, message: Any, receive_ns: int) -> int:
        header_ns = stamp_ns(message.header.stamp)
        return pick_stamp(self.contract, header_ns=header_ns, receive_ns=receive_ns)

    def _keep(self, stream: str, at_ns: int, value: Any, arrived_ns: int) -> None:
        if self.buffers.push(stream, stamp_ns=at_ns, value=value):
            with self._lock:
                self._arrivals[stream].append(_Arrival(at_ns, arrived_ns))
                self._problems.pop(stream, None)

    def _drop(self, stream: str, error: MessageError) -> None:
        with self._lock:
            self.dropped[stream] += 1
            self._problems[stream] = error
