"""An observation built live and the same one built from the recorded bag are byte-equal."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from fastvla_core.robot.align import StaleStreamError
from fastvla_core.types import Observation
from fastvla_ros.bridge.streams import StreamBridge
from tests.ros.nodes.robot_rig import CONTRACT, TASK, System, wait_until
from training.bags.reader import open_bag
from training.bags.streams import observe_at
from training.bags.writer import EpisodeWriter


class LiveAndRecorded:
    """Gives each serialised message to the bridge and to the writer, as it comes in."""

    def __init__(self, system: System, folder: Path) -> None:
        self.bridge = StreamBridge(CONTRACT)
        self.writer = EpisodeWriter(folder, contract=CONTRACT, instruction=TASK)
        self.observations: list[Observation] = []
        self._robot = system.robot
        self._lock = threading.Lock()
        self._subscribe()

    def _subscribe(self) -> None:
        from rclpy.qos import qos_profile_sensor_data
        from rclpy.serialization import deserialize_message
        from sensor_msgs.msg import Image, JointState

        def listen(kind, type_name: str, topic: str, take) -> None:
            def on_bytes(data) -> None:
                with self._lock:
                    now_ns = self._robot.get_clock().now().nanoseconds
                    self.writer.write(
                        topic, type_name=type_name, message=bytes(data), stamp_ns=now_ns
                    )
                    take(deserialize_message(bytes(data), kind), now_ns)
                    self._observe()

            self._robot.create_subscription(
                kind, topic, on_bytes, qos_profile_sensor_data, raw=True
            )

        for camera in CONTRACT.policy_cameras:
            listen(
                Image, "sensor_msgs/msg/Image", camera.topic,
                lambda message, now_ns, name=camera.name: self.bridge.on_image(
                    name, message, receive_ns=now_ns
                ),
            )  # fmt: skip
        listen(
            JointState, "sensor_msgs/msg/JointState", CONTRACT.joint_states.topic,
            lambda message, now_ns: self.bridge.on_joint_state(message, receive_ns=now_ns),
        )  # fmt: skip

    def _observe(self) -> None:
        try:
            seen = self.bridge.observe(TASK)
        except StaleStreamError:
            return
        if not self.observations or seen.stamp_ns > self.observations[-1].stamp_ns:
            self.observations.append(seen)


def test_live_and_recorded_observations_are_byte_equal(system: System, tmp_path: Path):
    recording = LiveAndRecorded(system, tmp_path / "episode")
    wait_until(lambda: len(recording.observations) >= 30, what="observations")
    with recording._lock:
        live = list(recording.observations)
        bag_path = recording.writer.close("success")
        recording.writer.write = lambda *_, **__: None  # messages still come in
    with open_bag(bag_path) as bag:
        stamps = [seen.stamp_ns for seen in live]
        recorded = list(observe_at(bag, contract=CONTRACT, task=TASK, at_ns=stamps))
    assert len(recorded) == len(live)
    for a, b in zip(live, recorded):
        assert isinstance(b, Observation)
        assert (a.stamp_ns, a.task) == (b.stamp_ns, b.task)
        assert (a.oldest_age_ns, a.camera_skew_ns) == (b.oldest_age_ns, b.camera_skew_ns)
        assert a.images.keys() == b.images.keys() == {"front", "wrist"}
        for camera in a.images:
            assert a.images[camera].tobytes() == b.images[camera].tobytes()
        assert a.state.tobytes() == b.state.tobytes()
    assert len({a.images["front"].tobytes() for a in live}) > 10
    assert np.ptp([a.stamp_ns for a in live]) > 2e8
