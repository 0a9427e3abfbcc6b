"""`fastvla record --task` beside a running robot: one episode, serialised messages as they came."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fastvla_core.robot.contract_file import load_contract
from fastvla_ros.bringup_spin import SharedProcess
from fastvla_ros.demo.domain import reserve_domain
from tests.core.bags.small_disk import can_mount, command_on_small_disk
from training.bags.episodes import episode_steps
from training.bags.reader import open_bag
from training.bags.streams import observe_at

S = 1_000_000_000


class Robot:
    """Publishes what a robot would, at 30 Hz, with pictures that count."""

    def __init__(self, process: SharedProcess, contract) -> None:
        from rclpy.node import Node
        from sensor_msgs.msg import JointState
        from std_msgs.msg import String
        from trajectory_msgs.msg import JointTrajectory

        from fastvla_msgs.msg import TaskOutcome
        from fastvla_ros.bridge.classes import message_class
        from fastvla_ros.nodes.sim_robot_node import LATCHED

        self.contract = contract
        self.node = process.add(Node("robot", use_global_arguments=False))
        self.images = {
            c.name: self.node.create_publisher(message_class(c.message_type), c.topic, 10)
            for c in contract.observed_cameras
        }
        self.joints = self.node.create_publisher(JointState, contract.joint_states.topic, 10)
        self.command = self.node.create_publisher(JointTrajectory, contract.outputs.command, 10)
        self.outcome = self.node.create_publisher(TaskOutcome, "task_outcome", LATCHED)
        # The last that the recorder hears of: when it has this one, it has all before.
        self.task = self.node.create_publisher(String, "current_task", LATCHED)
        self.task.publish(String(data="reach the red cube"))
        self.frame, self.is_noisy = 0, False

    def wait_for_recorder(self) -> None:
        from rclpy.duration import Duration

        topics = [*self.images.values(), self.joints, self.command, self.outcome, self.task]
        _until(lambda: all(t.get_subscription_count() for t in topics))
        assert self.task.wait_for_all_acked(Duration(seconds=60))

    def stamp_ns(self) -> int:
        return 50 * S + self.frame * S // 30

    def step(self) -> None:
        from builtin_interfaces.msg import Time
        from sensor_msgs.msg import JointState

        from fastvla_core.types import JointTrajectoryCommand
        from fastvla_ros.bridge.images import camera_message
        from fastvla_ros.commands.joint_trajectory import to_message

        now_ns = self.stamp_ns()
        stamp = Time(sec=now_ns // S, nanosec=now_ns % S)
        names = self.contract.action_names
        positions = np.full(7, 0.001 * self.frame)
        joints = JointState(name=list(names), position=positions.tolist())
        joints.header.stamp = stamp
        self.joints.publish(joints)
        for name, publisher in self.images.items():
            camera = self.contract.camera(name)
            pixels = np.full((camera.height, camera.width, 3), self.frame % 256, np.uint8)
            if self.is_noisy:
                # Nothing that a compressor could shrink.
                pixels = np.random.default_rng(self.frame).integers(0, 256, (200, 200, 3), np.uint8)
            if camera.kind == "depth":
                pixels = np.full((camera.height, camera.width), 0.5, np.float32)
            publisher.publish(camera_message(camera, pixels, stamp=stamp, frame_id=name))
        command = JointTrajectoryCommand(
            stamp_ns=now_ns, names=names, positions=positions + 1.0,
            velocities=np.zeros(7), duration_s=1 / 30,
        )  # fmt: skip
        self.command.publish(to_message(command))
        self.frame += 1
        time.sleep(1 / 30)

    def judge(self, *, stamp_ns: int, outcome: int) -> None:
        from builtin_interfaces.msg import Time

        from fastvla_msgs.msg import TaskOutcome

        message = TaskOutcome(task="reach", outcome=outcome)
        message.header.stamp = Time(sec=stamp_ns // S, nanosec=stamp_ns % S)
        self.outcome.publish(message)


def _until(condition: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def domain():
    with reserve_domain() as free:
        yield free


def _contract(tmp_path: Path, **cameras: dict[str, Any]) -> Path:
    data = load_contract("tabletop").to_dict()
    for name, changes in cameras.items():
        data["cameras"][name] = {**data["cameras"].get(name, {}), **changes}
    for camera in data["cameras"].values():
        camera.update(width=16, height=12)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def _record(out: Path, contract: Path, domain: int, *options: str) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "fastvla_core.cli", "record", "--task", "reach the red cube",
        "--out", str(out), "--contract", str(contract), *options,
    ]  # fmt: skip
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_an_episode_ends_with_its_own_outcome_not_with_the_last_one(tmp_path, domain):
    contract_file = _contract(tmp_path)
    with SharedProcess(domain_id=domain) as process:
        robot = Robot(process, load_contract(contract_file))
        robot.judge(stamp_ns=49 * S, outcome=2)
        recorder = _record(tmp_path / "episode", contract_file, domain)
        robot.wait_for_recorder()
        while robot.frame < 60:
            robot.step()
        assert recorder.poll() is None
        robot.judge(stamp_ns=robot.stamp_ns(), outcome=1)
        output, errors = recorder.communicate(timeout=60)
    assert recorder.returncode == 0, errors
    assert "outcome: success" in output
    with open_bag(tmp_path / "episode") as bag:
        assert not bag.problems
        assert (bag.instruction, bag.outcome) == ("reach the red cube", "success")
        assert bag.topics["/front/image_raw"].count >= 55
        steps = episode_steps(bag, contract=load_contract(contract_file))
    assert len(steps) >= 15
    # The pictures say at which frame they were taken; the command leads the state by 1 rad.
    frames = np.round((steps.stamp_ns - 50 * S) * 30 / S)
    shown = steps.images["wrist"][:, 0, 0, 0]
    assert np.all(abs(shown - frames) <= 1)
    assert steps.label[:, 0] - steps.state[:, 0] == pytest.approx(1.0, abs=0.005)


def test_compressed_pictures_and_depth_are_recorded(tmp_path, domain):
    depth = {"topic": "near/image", "kind": "depth", "encoding": "16UC1"}
    contract_file = _contract(
        tmp_path,
        front={"transport": "compressed"},
        near={**depth, "transport": "compressed_depth"},
        far={**depth, "topic": "far/image"},
    )
    contract = load_contract(contract_file)
    with SharedProcess(domain_id=domain) as process:
        robot = Robot(process, contract)
        recorder = _record(tmp_path / "episode", contract_file, domain, "--outcome", "success")
        robot.wait_for_recorder()
        while robot.frame < 40:
            robot.step()
        recorder.send_signal(signal.SIGINT)
        _, errors = recorder.communicate(timeout=60)
    assert recorder.returncode == 0, errors
    with open_bag(tmp_path / "episode") as bag:
        for topic in ("/front/image_raw/compressed", "/near/image/compressedDepth", "/far/image"):
            assert bag.topics[topic].count >= 20
        steps = episode_steps(bag, contract=contract)
        (seen,) = observe_at(bag, contract=contract, task="t", at_ns=[int(steps.stamp_ns[-1])])
    assert steps.image_present.all()
    assert set(steps.images) == {"front", "wrist"}
    np.testing.assert_array_equal(seen.depths["near"], np.full((12, 16), 0.5, np.float32))
    np.testing.assert_array_equal(seen.depths["far"], seen.depths["near"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_episode_and_keeps_it(tmp_path, domain, number):
    contract_file = _contract(tmp_path)
    with SharedProcess(domain_id=domain) as process:
        robot = Robot(process, load_contract(contract_file))
        recorder = _record(tmp_path / "episode", contract_file, domain, "--outcome", "success")
        robot.wait_for_recorder()
        while robot.frame < 20:
            robot.step()
        recorder.send_signal(number)
        output, errors = recorder.communicate(timeout=60)
    assert recorder.returncode == 0, errors
    assert "outcome: success" in output
    with open_bag(tmp_path / "episode") as bag:
        assert bag.topics["/joint_states"].count >= 15


def test_a_killed_recorder_leaves_what_it_heard(tmp_path, domain):
    contract_file = _contract(tmp_path)
    with SharedProcess(domain_id=domain) as process:
        robot = Robot(process, load_contract(contract_file))
        recorder = _record(tmp_path / "episode", contract_file, domain)
        robot.wait_for_recorder()
        while robot.frame < 60:
            robot.step()
        sent = robot.frame
        time.sleep(1.5)  # nothing is published now, and half a second later all of it is safe
        recorder.kill()
        recorder.communicate(timeout=60)
    with open_bag(tmp_path / "episode.partial") as bag:
        assert bag.instruction == "reach the red cube"
        stamps = [m.stamp_ns for m in bag.messages() if m.topic == "/joint_states"]
    assert len(stamps) >= sent - 5


def test_what_comes_late_or_stops_is_told_and_recorded(tmp_path, domain):
    contract_file = _contract(tmp_path)
    with SharedProcess(domain_id=domain) as process:
        robot = Robot(process, load_contract(contract_file))
        late = robot.images.pop("wrist")
        recorder = _record(tmp_path / "episode", contract_file, domain)
        robot.wait_for_recorder()
        while robot.frame < 150:
            robot.step()
        front, robot.images = robot.images, {"wrist": late}
        while robot.frame < 300:
            robot.step()
        robot.images |= front
        while robot.frame < 330:
            robot.step()
        recorder.send_signal(signal.SIGINT)
        _, errors = recorder.communicate(timeout=60)
    assert recorder.returncode == 0, errors
    said = [line for line in errors.splitlines() if line.startswith("fastvla record:")]
    for word in ("wrist comes from now on", "front has stopped", "front is back"):
        assert sum(word in line for line in said) == 1, errors
    with open_bag(tmp_path / "episode") as bag:
        assert bag.topics["/wrist/image_raw"].count >= 150
        assert bag.topics["/front/image_raw"].count >= 150


def test_a_camera_of_another_type_is_named_and_the_rest_is_kept(tmp_path, domain):
    from rclpy.node import Node
    from sensor_msgs.msg import CompressedImage

    contract_file = _contract(tmp_path)
    with SharedProcess(domain_id=domain) as process:
        robot = Robot(process, load_contract(contract_file))
        robot.images.pop("wrist")
        other = process.add(Node("webcam", use_global_arguments=False))
        other.create_publisher(CompressedImage, "wrist/image_raw", 10)
        recorder = _record(tmp_path / "episode", contract_file, domain)
        while recorder.poll() is None:
            robot.step()
        _, errors = recorder.communicate(timeout=60)
    assert recorder.returncode == 1
    assert "nothing came from wrist" in errors
    assert "/webcam publishes '/wrist/image_raw' as sensor_msgs/msg/CompressedImage" in errors
    assert "messages are kept" in errors
    assert "Traceback" not in errors
    with open_bag(tmp_path / "episode") as bag:
        assert bag.topics["/front/image_raw"].count > 0


@pytest.mark.skipif(not can_mount(), reason="no user namespaces here")
def test_a_full_disk_is_one_message_and_everything_before_is_kept(tmp_path, domain):
    contract_file = _contract(tmp_path)
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    record = [
        sys.executable, "-m", "fastvla_core.cli", "record", "--task", "reach", "--out",
        str(disk / "episode"), "--contract", str(contract_file),
    ]  # fmt: skip
    # The disk is gone with its namespace.
    script = '"$@"; status=$?; cp -r "$0" "' + str(copy) + '"; exit $status'
    command = command_on_small_disk("sh", "-c", script, str(disk), *record, folder=disk, size="9m")
    with SharedProcess(domain_id=domain) as process:
        robot = Robot(process, load_contract(contract_file))
        recorder = subprocess.Popen(
            command, env={**os.environ, "ROS_DOMAIN_ID": str(domain)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        robot.wait_for_recorder()
        robot.is_noisy = True
        while recorder.poll() is None:
            robot.step()
        _, errors = recorder.communicate(timeout=60)
    assert recorder.returncode == 1
    assert errors.count("the disk is full; what was recorded until now is kept") == 1, errors
    assert "Traceback" not in errors
    with open_bag(copy / "episode") as bag:
        assert not bag.problems
        assert bag.topics["/front/image_raw"].count >= 5


def test_a_silent_robot_is_named_and_no_empty_bag_is_left(tmp_path, domain):
    recorder = _record(tmp_path / "episode", _contract(tmp_path), domain, "--duration", "0.5")
    _, errors = recorder.communicate(timeout=60)
    assert recorder.returncode == 1
    assert "nothing came from front, wrist, joint_states" in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("episode*"))
