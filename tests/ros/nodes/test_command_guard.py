"""The guard between real nodes: limits, the gripper, the watchdog, the stop."""

from __future__ import annotations

import array
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fastvla_core.errors import ContractError
from tests.ros.nodes.goal_calls import Goal, SteadyPolicy, call, executing
from tests.ros.nodes.robot_rig import CONTRACT, START, Stalls, System, wait_until

ARM = [joint.name for joint in CONTRACT.joints]
WATCHDOG_S = CONTRACT.watchdog.timeout_s


class Sender:
    """Sends commands to the guard as a policy server would, and listens to its status."""

    def __init__(self, system: System) -> None:
        from trajectory_msgs.msg import JointTrajectory

        from fastvla_msgs.msg import GuardStatus
        from fastvla_ros.nodes.command_guard_node import STATUS_QOS

        self.robot = system.robot
        self.status: list = []
        self.publisher = self.robot.create_publisher(JointTrajectory, "command", 10)
        self.robot.create_subscription(
            GuardStatus, "command_guard/status", self.status.append, STATUS_QOS
        )
        self.node = system.guard()
        # the robot itself listens to `command` too
        wait_until(lambda: self.publisher.get_subscription_count() >= 2, what="the guard")
        wait_until(lambda: self.status, what="the guard's status")

    def send(self, positions, *, names=CONTRACT.action_names) -> None:
        from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

        message = JointTrajectory(joint_names=list(names))
        message.points = [JointTrajectoryPoint(positions=array.array("d", list(positions)))]
        self.publisher.publish(message)

    def wait_dropped(self, count: int) -> None:
        wait_until(lambda: self.status[-1].commands_dropped == count, what="the drop")


def near(**changes: float) -> np.ndarray:
    target = START.copy()
    for name, value in changes.items():
        target[CONTRACT.action_names.index(name)] += value
    return target


def test_the_arm_goes_to_the_controller_and_the_gripper_to_its_action(system: System):
    sender = Sender(system)
    target = near(joint1=0.01, gripper=0.005)
    sender.send(target)
    wait_until(lambda: system.robot.outputs and system.robot.gripper_goals)
    _, output = system.robot.outputs[0]
    assert output.joint_names == ARM
    np.testing.assert_allclose(output.points[0].positions, target[:6])
    assert len(output.points[0].velocities) == 6
    assert output.header.stamp.sec == output.header.stamp.nanosec == 0
    command = system.robot.gripper_goals[0].command
    assert list(command.name) == ["gripper"]
    assert command.position[0] == pytest.approx(0.025)
    assert command.effort[0] == CONTRACT.gripper.max_effort


def test_a_permuted_command_is_the_same_command(system: System):
    sender = Sender(system)
    target = near(joint1=0.01, joint4=-0.02)
    order = [5, 3, 6, 0, 2, 1, 4]
    sender.send(target[order], names=[CONTRACT.action_names[i] for i in order])
    wait_until(lambda: system.robot.outputs)
    np.testing.assert_allclose(system.robot.outputs[0][1].points[0].positions, target[:6])


def test_bad_commands_move_nothing_and_are_counted(system: System):
    sender = Sender(system)
    sender.send(near(joint2=float("nan")))
    sender.wait_dropped(1)
    sender.send(START[:-1], names=CONTRACT.action_names[:-1])
    sender.wait_dropped(2)
    sender.send(START, names=(*ARM, "finger"))
    sender.wait_dropped(3)
    sender.send(START[:-1])
    sender.wait_dropped(4)
    assert system.robot.outputs == []
    assert system.robot.gripper_goals == []
    assert sender.status[-1].commands_received == 4


def test_a_far_command_is_limited_and_counted(system: System):
    sender = Sender(system)
    sender.send(near(joint1=1.0))
    wait_until(lambda: sender.status[-1].commands_limited == 1, what="the count")
    assert sender.status[-1].limited_joints == ["joint1"]
    moved = system.robot.outputs[0][1].points[0].positions[0] - START[0]
    assert 0 < moved <= CONTRACT.joints[0].max_velocity / 30 + 1e-9


def test_silence_holds_once_at_the_measured_position(system: System):
    sender = Sender(system)
    with Stalls() as stalls:
        sender.send(near(joint1=0.02))
        wait_until(lambda: system.robot.outputs)
        sent_at = time.monotonic()
        measured = near(joint1=0.013)
        system.robot.state = measured
        wait_until(lambda: len(system.robot.outputs) == 2, what="the hold")
        stall_s = stalls.take_s()
    at, hold = system.robot.outputs[1]
    assert at - sent_at < WATCHDOG_S + 0.05 + 4 * stall_s
    np.testing.assert_allclose(hold.points[0].positions, measured[:6], atol=1e-6)
    assert not np.any(hold.points[0].velocities)
    time.sleep(2 * WATCHDOG_S)
    assert len(system.robot.outputs) == 2
    wait_until(lambda: "no command for 0.2 s" in sender.status[-1].reason)
    assert not sender.status[-1].latched


def test_the_stop_latches_until_it_is_reset(system: System):
    sender = Sender(system)
    sender.send(near(joint1=0.01))
    wait_until(lambda: system.robot.outputs)
    assert call(system, "command_guard/stop").success
    wait_until(lambda: sender.status[-1].latched)
    count = len(system.robot.outputs)
    sender.send(near(joint1=0.02))
    sender.wait_dropped(1)
    assert len(system.robot.outputs) == count
    commands = system.robot.create_timer(0.03, lambda: sender.send(near(joint1=0.02)))
    refused = call(system, "command_guard/reset_stop")
    system.robot.destroy_timer(commands)
    assert not refused.success
    assert "still come in" in refused.message
    time.sleep(1.5 * WATCHDOG_S)
    assert call(system, "command_guard/reset_stop").success
    sender.send(near(joint1=0.02))
    wait_until(lambda: len(system.robot.outputs) > count)


def test_a_stopped_guard_ends_the_goal_as_a_safety_stop(system: System, steady: SteadyPolicy):
    system.guard()
    system.serve("steady")
    goal = executing(system)
    assert call(system, "command_guard/stop").success
    report = goal.wait()
    assert report.error == "SAFETY_STOP"
    assert "the guard stopped" in report.message
    assert Goal(system).wait().status == "REJECTED"


def test_limited_commands_are_reported_with_the_goal(system: System, steady: SteadyPolicy):
    sender = Sender(system)
    system.serve("steady")
    goal = executing(system)
    sender.send(near(joint1=1.0))
    wait_until(lambda: sender.status[-1].commands_limited > 0, what="the count")
    time.sleep(0.2)
    assert call(system, "policy_server/stop").success
    assert goal.wait().commands_limited > 0


def test_a_missing_contract_ends_the_executable_with_one_message(domain_id: int):
    entry = "import sys; from fastvla_ros.nodes.command_guard import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run(
        [sys.executable, "-c", entry, "--ros-args", "-p", "contract:=nowhere"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "nowhere" in ended.stderr
    assert "to mend" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_gripper_command_outlives_a_server_that_did_not_answer(system: System):
    from control_msgs.action import ParallelGripperCommand
    from rclpy.action import ActionServer
    from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

    robot = system.robot
    robot.gripper.destroy()
    hangs, goes_on = threading.Event(), threading.Event()
    group = MutuallyExclusiveCallbackGroup()

    def hang() -> None:
        hangs.set()
        goes_on.wait(30)

    timer = robot.create_timer(0.01, hang, callback_group=group)
    dying = ActionServer(
        robot, ParallelGripperCommand, CONTRACT.gripper.action, robot.on_gripper,
        callback_group=group,
    )  # fmt: skip
    assert hangs.wait(10)
    sender = Sender(system)
    sender.send(near(gripper=0.005))
    wait_until(lambda: sender.node._gripper._on_its_way, what="the goal to be sent")
    robot.destroy_timer(timer)
    dying.destroy()
    goes_on.set()
    robot.gripper = ActionServer(
        robot, ParallelGripperCommand, CONTRACT.gripper.action, robot.on_gripper
    )
    wait_until(lambda: robot.gripper_goals, timeout_s=20, what="the goal to be sent again")
    assert robot.gripper_goals[0].command.position[0] == pytest.approx(0.025)


def other_contract(path: Path, **outputs: Any) -> Path:
    """The table-top robot with another interface, and the old gripper action."""
    data = CONTRACT.to_dict()
    data["outputs"] |= {"topic": "other/commands", **outputs}
    data["gripper"]["interface"] = "gripper_command"
    data["joint_states"]["names"] = {"shoulder": "joint1", "finger": "gripper"}
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


class OtherGuard:
    """A guard that serves another interface, what it sends, and a sender of commands."""

    def __init__(self, system: System, contract_file: Path) -> None:
        from rclpy.parameter import Parameter
        from trajectory_msgs.msg import JointTrajectory

        from fastvla_core.robot.contract_file import load_contract
        from fastvla_ros.bridge.classes import message_class
        from fastvla_ros.nodes.command_guard_node import CommandGuardNode

        outputs = load_contract(contract_file).outputs
        self.got: list = []
        system.robot.create_subscription(
            message_class(outputs.message_type), outputs.topic, self.got.append, 10
        )
        parameter = Parameter("contract", value=str(contract_file))
        node = CommandGuardNode(use_global_arguments=False, parameter_overrides=[parameter])
        system.process.add(node)
        self.publisher = system.robot.create_publisher(JointTrajectory, "command", 10)
        # The robot itself listens to `command` too.
        wait_until(lambda: self.publisher.get_subscription_count() >= 2, what="the guard")

    def send(self, positions, velocities) -> None:
        from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

        point = JointTrajectoryPoint(
            positions=array.array("d", list(positions)), velocities=array.array("d", velocities)
        )
        message = JointTrajectory(joint_names=list(CONTRACT.action_names), points=[point])
        self.publisher.publish(message)

    def send_until_one_comes(self, positions, velocities) -> None:
        def sent() -> bool:
            self.send(positions, velocities)
            time.sleep(0.02)
            return bool(self.got)

        wait_until(sent, what="a command of the other interface")


SPEED = [0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_forward_positions(system: System, tmp_path: Path):
    guard = OtherGuard(system, other_contract(tmp_path / "r.yaml", interface="forward_position"))
    target = near(joint1=0.01)
    guard.send_until_one_comes(target, SPEED)
    np.testing.assert_allclose(list(guard.got[0].data), target[:6], atol=1e-9)
    # Silence: the measured position.
    wait_until(lambda: list(guard.got[-1].data) != list(guard.got[0].data), what="the hold")
    np.testing.assert_allclose(list(guard.got[-1].data), system.robot.state[:6], atol=1e-6)


def test_jogs_carry_the_drivers_names_and_the_time_and_end_in_zeros(system: System, tmp_path: Path):
    guard = OtherGuard(system, other_contract(tmp_path / "r.yaml", interface="joint_jog"))
    guard.send_until_one_comes(near(joint1=0.01), SPEED)
    jog = guard.got[0]
    assert list(jog.joint_names) == ["shoulder", *ARM[1:]]
    assert jog.velocities[0] > 0.3
    np.testing.assert_allclose(jog.velocities[1:], 0.0, atol=1e-6)
    age_s = time.time() - (jog.header.stamp.sec + jog.header.stamp.nanosec * 1e-9)
    assert 0 <= age_s < 5
    assert jog.duration == pytest.approx(2 / 30)
    wait_until(lambda: not any(guard.got[-1].velocities), what="the hold")


def test_twists_are_the_tools_and_end_in_zeros(system: System, tmp_path: Path):
    from fastvla_core.resources import share_path

    urdf = share_path("config/robots/tabletop.urdf").read_text()
    (tmp_path / "arm.urdf").write_text(urdf.replace('"joint1"', '"shoulder"'))
    spec = {"urdf": "arm.urdf", "base": "base_link", "tool": "tool0", "max_linear": 0.05,
            "max_angular": 2.0}  # fmt: skip
    guard = OtherGuard(system, other_contract(tmp_path / "r.yaml", interface="twist", twist=spec))
    guard.send_until_one_comes(near(joint1=0.01), SPEED)
    message = guard.got[0]
    assert message.header.frame_id == "base_link"
    assert message.header.stamp.sec > 0
    linear, angular = message.twist.linear, message.twist.angular
    # joint1 turns about the vertical; the tool swings sideways, at its largest speed.
    assert np.hypot(linear.x, linear.y) == pytest.approx(0.05, rel=1e-3)
    assert linear.z == pytest.approx(0.0, abs=1e-6)
    assert angular.z > 0.05
    wait_until(lambda: guard.got[-1].twist.linear.y == 0.0, what="the hold")
    assert guard.got[-1].twist.angular.z == 0.0


def test_a_guard_without_its_urdf_does_not_start(system: System, tmp_path: Path):
    spec = {"urdf": "no.urdf", "base": "a", "tool": "b", "max_linear": 1.0, "max_angular": 1.0}
    with pytest.raises(ContractError, match=r"there is no file .*no\.urdf"):
        OtherGuard(system, other_contract(tmp_path / "r.yaml", interface="twist", twist=spec))


def test_the_old_gripper_action(system: System, tmp_path: Path):
    from control_msgs.action import GripperCommand
    from rclpy.action import ActionServer

    goals: list = []

    def execute(handle: Any) -> Any:
        goals.append(handle.request.command)
        handle.succeed()
        return GripperCommand.Result()

    contract = other_contract(tmp_path / "r.yaml", interface="forward_position")
    data = yaml.safe_load(contract.read_text())
    data["gripper"]["action"] = "hand/gripper_cmd"
    contract.write_text(yaml.safe_dump(data, sort_keys=False))
    server = ActionServer(system.robot, GripperCommand, "hand/gripper_cmd", execute)
    guard = OtherGuard(system, contract)
    for opening in (0.001, 0.0012, 0.006):
        target = near(gripper=opening)
        begun = len(guard.got)
        for _ in range(3):
            guard.send(target, [0.0] * 7)
            time.sleep(0.02)
        wait_until(lambda: len(guard.got) > begun, what="the arm")  # noqa: B023
    wait_until(lambda: len(goals) >= 2, what="the gripper's goals")
    server.destroy()
    # The second opening is within the dead band of the first.
    assert goals[0].position == pytest.approx(START[6] + 0.001)
    assert goals[-1].position == pytest.approx(START[6] + 0.006, abs=1e-4)
    assert all(goal.max_effort == CONTRACT.gripper.max_effort for goal in goals)
    assert all(abs(goal.position - START[6] - 0.0012) > 1e-5 for goal in goals)
