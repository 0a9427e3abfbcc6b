"""A robot of messages only, on a ROS domain of its own: sensors that can fail, commands kept."""

from __future__ import annotations

import array
import functools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastvla_core.models.statistics import MeanStd, Statistics
from fastvla_core.models.tokenizer import train_tokenizer
from fastvla_core.policy import FastVLA, policy_config
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.contract_file import load_contract
from fastvla_ros.bringup_spin import SharedProcess
from fastvla_ros.runtime import ensure_ros

CONTRACT = load_contract("tabletop")
START = np.array([0.0, 0.5, -1.0, 0.0, 0.5, 0.0, 0.02])
TASK = "pick up the red cube"


def wait_until(condition: Callable[[], Any], *, timeout_s: float = 10.0, what: str = "") -> None:
    """Wait for something that other threads do."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"waited {timeout_s} s for {what or condition}"
        time.sleep(0.005)


def save_tiny_policy(folder: Path, *, contract: RobotContract = CONTRACT) -> Path:
    """A real policy with random weights, of the smallest size that runs, which hardly moves."""
    import torch

    from fastvla_core.layers.attention import AttentionShape
    from fastvla_core.models.policies.flow_vla.config import TransformerSize

    size = TransformerSize(width=32, depth=2, mlp_width=32)
    config = policy_config(
        "nano",
        contract=contract,
        vision={
            "type": "film_conv",
            "per_camera_weights": True,
            "channels": [8, 16],
            "condition_width": 32,
            "groups": 4,
        },
        text=size,
        prefix=size,
        expert=size,
        attention=AttentionShape(heads=2, kv_heads=2, head_dim=16),
        num_inference_steps=2,
    )
    states, actions = len(config.state_names), len(config.action_names)
    mean = torch.zeros(config.chunk_size, actions)
    mean[:, -1] = START[-1]  # the gripper's targets are absolute, the arm's relative
    statistics = Statistics(
        state=MeanStd(torch.zeros(states), torch.ones(states)),
        action=MeanStd(mean, torch.full((config.chunk_size, actions), 0.002)),
    )
    policy = FastVLA.from_config(
        config, statistics=statistics, tokenizer=train_tokenizer([TASK, "wave"])
    )
    policy.save_pretrained(folder)
    return folder


def make_robot(name: str = "robot") -> Any:
    """The robot's node; made late, because its classes need ROS in place."""
    ensure_ros()
    from builtin_interfaces.msg import Time
    from control_msgs.action import ParallelGripperCommand
    from rclpy.action import ActionServer
    from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
    from rclpy.node import Node
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image, JointState
    from std_msgs.msg import Header
    from trajectory_msgs.msg import JointTrajectory

    class Robot(Node):
        """Publishes what it is told to, follows every trajectory, keeps what came in.

        Attributes:
            silent, frozen: Streams that stop, cameras that repeat their picture.
            order: Of the joints in the joint states; a name may be there twice.
            follow: Share of the way to a set point that the arm gets.
            clock_ns: Added to every stamp.
            outputs, measured: What the guard sent, and where the robot was when it came.
        """

        def __init__(self) -> None:
            super().__init__(name, use_global_arguments=False)
            self.state = START.copy()
            self.silent: set[str] = set()
            self.frozen: set[str] = set()
            self.encoding, self.size = "rgb8", 96
            self.order = list(range(len(START)))
            self.follow, self.clock_ns = 1.0, 0
            self.commands: list[tuple[float, Any]] = []
            self.outputs: list[tuple[float, Any]] = []
            self.measured: list[np.ndarray] = []
            self.gripper_goals: list[Any] = []
            self.frame = 0
            self.images = {
                c.name: self.create_publisher(Image, c.topic, qos_profile_sensor_data)
                for c in CONTRACT.policy_cameras
            }
            self.joints = self.create_publisher(JointState, CONTRACT.joint_states.topic, 10)
            group = ReentrantCallbackGroup()
            # One at a time per topic: in a reentrant group two messages may change places.
            self.create_subscription(
                JointTrajectory, CONTRACT.outputs.command, self.on_command, 50,
                callback_group=MutuallyExclusiveCallbackGroup(),
            )  # fmt: skip
            self.create_subscription(
                JointTrajectory, CONTRACT.outputs.topic, self.on_output, 50,
                callback_group=MutuallyExclusiveCallbackGroup(),
            )  # fmt: skip
            self.gripper = ActionServer(
                self, ParallelGripperCommand, CONTRACT.gripper.action, self.on_gripper,
                callback_group=group,
            )  # fmt: skip
            self.create_timer(1 / 30, self.show)
            self.create_timer(1 / 100, self.feel)

        def header(self) -> Header:
            now_ns = self.get_clock().now().nanoseconds + self.clock_ns
            return Header(stamp=Time(sec=now_ns // 10**9, nanosec=now_ns % 10**9))

        def show(self) -> None:
            self.frame += 1
            header = self.header()
            for camera, publisher in self.images.items():
                if camera in self.silent:
                    continue
                number = 0 if camera in self.frozen else self.frame
                size = self.size
                pixels = np.random.default_rng(number).integers(0, 256, size * size * 3, np.uint8)
                publisher.publish(
                    Image(
                        header=header, height=size, width=size, encoding=self.encoding,
                        step=3 * size, is_bigendian=0, data=array.array("B", pixels.tobytes()),
                    )
                )  # fmt: skip

        def feel(self) -> None:
            if "joint_states" in self.silent:
                return
            self.joints.publish(
                JointState(
                    header=self.header(),
                    name=[CONTRACT.state_names[i] for i in self.order],
                    position=array.array("d", self.state[self.order].tolist()),
                )
            )

        def on_command(self, message: Any) -> None:
            self.commands.append((time.monotonic(), message))

        def on_output(self, message: Any) -> None:
            self.measured.append(self.state.copy())
            self.outputs.append((time.monotonic(), message))
            wanted = np.array(message.points[0].positions)
            self.state[:6] += self.follow * (wanted - self.state[:6])

        def on_gripper(self, handle: Any) -> Any:
            self.gripper_goals.append(handle.request)
            self.state[6] = handle.request.command.position[0]
            handle.succeed()
            return ParallelGripperCommand.Result()

        def destroy_node(self) -> None:
            self.gripper.destroy()
            super().destroy_node()

    return Robot()


class Stalls:
    """Measures how long this machine leaves a thread waiting that should run; a context manager.

    What a test measures on a busy machine is late by as much.
    """

    _PERIOD_S = 0.005

    def __init__(self) -> None:
        self._worst_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Stalls:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def take_s(self) -> float:
        """The longest stall since the last call [s]."""
        worst_s, self._worst_s = self._worst_s, 0.0
        return worst_s

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._stop.wait(self._PERIOD_S):
            now = time.monotonic()
            self._worst_s = max(self._worst_s, now - before - self._PERIOD_S)
            before = now


@contextmanager
def executable(
    name: str, *, package: str = "fastvla_ros.nodes", log: Path | None = None, **parameters: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A node's executable in a process of its own, as `ros2 run` starts it; killed at the end.

    Args:
        log: Takes what it writes to stderr.
    """
    arguments = ["--ros-args"]
    for key, value in parameters.items():
        arguments += ["-p", f"{key}:={value}"]
    entry = f"import sys; from {package}.{name} import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with ExitStack() as stack:
        stderr = stack.enter_context(log.open("wb")) if log is not None else None
        process = subprocess.Popen(
            [sys.executable, "-c", entry, *arguments], env=environment, stderr=stderr
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        yield process


class System:
    """Nodes of one test in one process, and a client for goals."""

    def __init__(self, process: SharedProcess) -> None:
        self.process = process
        self.robot = process.add(make_robot())

    @functools.cached_property
    def client(self) -> Any:
        """An action client for the policy server."""
        from fastvla_ros.nodes.task_client import TaskClient

        return TaskClient(self.robot)

    def serve(self, checkpoint: Path | str, **parameters: Any) -> Any:
        """Add a policy server."""
        from rclpy.parameter import Parameter

        from fastvla_ros.nodes.policy_server_node import PolicyServerNode

        values = {"checkpoint": str(checkpoint), "quantization": "none", "threads": 1, **parameters}
        node = PolicyServerNode(
            use_global_arguments=False,
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
        )
        return self.process.add(node)

    def guard(self) -> Any:
        """Add a command guard."""
        from fastvla_ros.nodes.command_guard_node import CommandGuardNode

        return self.process.add(CommandGuardNode(use_global_arguments=False))
