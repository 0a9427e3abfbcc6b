"""An observation built live and the same one built from the recorded bag are byte-equal."""

from __future__ import annotations

import array
import contextlib
import dataclasses
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from fastvla_core.errors import MessageError
from fastvla_core.robot.align import StaleStreamError
from fastvla_core.robot.contract import CameraSpec, RobotContract
from fastvla_core.types import Observation
from fastvla_ros.bridge.images import camera_message
from fastvla_ros.bridge.joints import to_time
from fastvla_ros.bridge.streams import StreamBridge
from fastvla_ros.runtime import ensure_ros
from tests.ros.nodes.robot_rig import CONTRACT, TASK, System, wait_until
from training.bags.reader import open_bag
from training.bags.streams import BagStreams, observe_at
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
    check_equal(live, recorded, cameras={"front", "wrist"})
    assert len({a.images["front"].tobytes() for a in live}) > 10
    assert np.ptp([a.stamp_ns for a in live]) > 2e8


def check_equal(live, recorded, *, cameras: Collection[str], depths: Collection[str] = ()) -> None:
    assert len(recorded) == len(live)
    for a, b in zip(live, recorded):
        assert isinstance(b, Observation)
        assert (a.stamp_ns, a.task) == (b.stamp_ns, b.task)
        assert (a.oldest_age_ns, a.camera_skew_ns) == (b.oldest_age_ns, b.camera_skew_ns)
        assert a.images.keys() == b.images.keys() == set(cameras)
        assert a.depths.keys() == b.depths.keys() == set(depths)
        for name in cameras:
            assert a.images[name].tobytes() == b.images[name].tobytes()
        for name in depths:
            assert a.depths[name].tobytes() == b.depths[name].tobytes()
        assert a.state.tobytes() == b.state.tobytes()


def compressed_contract() -> RobotContract:
    """JPEG and NV12 pictures, and depth in both forms."""
    front, wrist, scene = CONTRACT.cameras
    depth = {"kind": "depth", "width": 96, "height": 96, "encoding": "16UC1"}
    cameras = (
        dataclasses.replace(front, transport="compressed"),
        dataclasses.replace(wrist, encoding="nv12"),
        scene,
        CameraSpec(name="near", topic="near/depth", transport="compressed_depth", **depth),
        CameraSpec(name="far", topic="far/depth", **depth),
    )
    return dataclasses.replace(CONTRACT, cameras=cameras)


def camera_messages(contract: RobotContract, tick: int, stamp: Any) -> dict[str, Any]:
    """One message per observed camera; every fifth JPEG is cut."""
    from sensor_msgs.msg import Image

    random = np.random.default_rng(tick)
    picture = random.integers(0, 256, (96, 96, 3), np.uint8)
    metres = random.uniform(0.3, 4.0, (96, 96)).astype(np.float32)
    made = {
        camera.name: camera_message(
            camera, metres if camera.kind == "depth" else picture, stamp=stamp, frame_id=""
        )
        for camera in contract.observed_cameras
    }
    if tick % 5 == 3:
        made["front"].data = made["front"].data[:-40]
    nv12 = array.array("B", random.integers(0, 256, 96 * 144, np.uint8).tobytes())
    made["wrist"] = Image(header=made["near"].header, height=96, width=96, encoding="nv12",
                          step=96, data=nv12)  # fmt: skip
    return made


def test_compressed_and_depth_images_are_byte_equal_too(tmp_path: Path):
    ensure_ros()
    from rclpy.serialization import deserialize_message, serialize_message
    from sensor_msgs.msg import JointState

    contract = compressed_contract()
    bridge, live = StreamBridge(contract), []
    with EpisodeWriter(tmp_path / "bag", contract=contract, instruction=TASK) as writer:
        for tick in range(20):
            now_ns = 10**9 + tick * 33_000_000
            stamp = to_time(now_ns)
            joints = JointState(name=list(contract.state_names), position=[0.1 * tick] * 7)
            joints.header.stamp = stamp
            made = {contract.joint_states.topic: joints} | {
                contract.camera(name).topic: message
                for name, message in camera_messages(contract, tick, stamp).items()
            }
            names = {camera.topic: camera.name for camera in contract.cameras}
            for topic, message in made.items():
                kind, data = type(message), bytes(serialize_message(message))
                writer.write(topic, type_name=f"sensor_msgs/msg/{kind.__name__}", message=data,
                             stamp_ns=now_ns)  # fmt: skip
                heard = deserialize_message(data, kind)
                with contextlib.suppress(MessageError):
                    if topic in names:
                        bridge.on_image(names[topic], heard, receive_ns=now_ns)
                    else:
                        bridge.on_joint_state(heard, receive_ns=now_ns)
            live.append(bridge.observe(TASK))
    live = list({seen.stamp_ns: seen for seen in live}.values())
    assert bridge.dropped["front"] == 4
    with open_bag(tmp_path / "bag") as bag:
        streams = BagStreams(bag, contract=contract)
        assert len(list(streams.feed())) == 20 * 5 - 4
        assert streams.bad == {"/front/image_raw/compressed": 4}
        stamps = [seen.stamp_ns for seen in live]
        recorded = list(observe_at(bag, contract=contract, task=TASK, at_ns=stamps))
    check_equal(live, recorded, cameras={"front", "wrist"}, depths={"near", "far"})
    assert len({seen.images["front"].tobytes() for seen in live}) > 10


def test_a_recording_by_another_transport_serves_too(tmp_path: Path):
    ensure_ros()
    front, *others = CONTRACT.cameras
    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    with EpisodeWriter(tmp_path / "bag", contract=CONTRACT, instruction=TASK) as writer:
        for name in ("front", "wrist"):
            writer.image(name, stamp_ns=10**9, image=picture)
        writer.joint_state(CONTRACT.state_names, stamp_ns=10**9, positions=np.zeros(7))
    compressed = dataclasses.replace(
        CONTRACT, cameras=(dataclasses.replace(front, transport="compressed"), *others)
    )
    with open_bag(tmp_path / "bag") as bag:
        (seen,) = observe_at(bag, contract=compressed, task=TASK, at_ns=[10**9])
    assert isinstance(seen, Observation)
    np.testing.assert_array_equal(seen.images["front"], picture)
