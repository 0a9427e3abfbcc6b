"""The simulated controllers take real messages of every interface."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from fastvla_core.robot.contract import RobotContract, TwistSpec
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.robot.velocity import load_tool_chain
from fastvla_core.types import (
    ArmCommand,
    ForwardPositionCommand,
    JointJogCommand,
    JointTrajectoryCommand,
    TwistCommand,
)
from fastvla_ros.nodes.sim_robot_drive import SimDrive
from fastvla_ros.runtime import ensure_ros

ensure_ros()

from fastvla_ros.commands import arm  # noqa: E402
from fastvla_ros.nodes.sim_robot_arm import ArmInput  # noqa: E402

MS = 1_000_000
TABLETOP = load_contract("tabletop")
POSE = np.array([0.1, 0.9, -1.4, 0.2, -0.9, 0.3, 0.02])
NAMES = ("shoulder", *(f"joint{i}" for i in range(2, 7)))
SPEC = TwistSpec(
    urdf="tabletop.urdf", base="base_link", tool="tool0", max_linear=1.0, max_angular=1.0
)


class StubNode:
    """Keeps the subscription, and what is said."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.topic, self.kind, self.take = "", None, lambda _message: None

    def create_subscription(self, kind: Any, topic: str, take: Any, *_: Any, **__: Any) -> None:
        self.kind, self.topic, self.take = kind, topic, take

    def get_logger(self) -> Any:
        return self

    def error(self, text: str) -> None:
        self.errors.append(text)


class Rig:
    def __init__(self, contract: RobotContract) -> None:
        self.node, self.now_ns = StubNode(), 0
        self.drive = SimDrive(contract, start=POSE)
        self.input = ArmInput(
            self.node, contract, source="tabletop", drive=self.drive,
            now_ns=lambda: self.now_ns, group=None,
        )  # fmt: skip

    def send(self, command: ArmCommand) -> None:
        message = arm.to_message(command)
        assert type(message) is self.node.kind
        self.node.take(message)


def with_interface(interface: str) -> RobotContract:
    outputs = dataclasses.replace(TABLETOP.outputs, interface=interface, topic="arm", twist=SPEC)
    return dataclasses.replace(TABLETOP, outputs=outputs)


def rig(interface: str) -> Rig:
    contract = with_interface(interface)
    # The shipped URDF has the contract's names.
    renamed = () if interface == "twist" else (("shoulder", "joint1"),)
    states = dataclasses.replace(TABLETOP.joint_states, names=renamed)
    return Rig(dataclasses.replace(contract, joint_states=states))


def test_a_trajectory_by_the_drivers_names():
    robot = rig("joint_trajectory")
    robot.send(
        JointTrajectoryCommand(
            stamp_ns=0, names=NAMES, positions=POSE[:6] + 0.1, velocities=None, duration_s=0.1
        )
    )
    np.testing.assert_allclose(robot.drive.target(50 * MS)[:6], POSE[:6] + 0.05)
    assert robot.drive.target(50 * MS)[6] == POSE[6]


def test_positions_at_once():
    robot = rig("forward_position")
    robot.send(ForwardPositionCommand(stamp_ns=0, positions=POSE[:6] + 0.1))
    np.testing.assert_allclose(robot.drive.target(0)[:6], POSE[:6] + 0.1)


def test_velocities_of_joints_end_by_themselves():
    robot = rig("joint_jog")
    robot.send(JointJogCommand(stamp_ns=0, names=NAMES, velocities=np.ones(6), duration_s=0.07))
    np.testing.assert_allclose(robot.drive.target(50 * MS)[:6], POSE[:6] + 0.05)
    np.testing.assert_allclose(robot.drive.target(900 * MS)[:6], POSE[:6] + 0.1)


@pytest.mark.parametrize("frame", ["base_link", "tool0"])
def test_a_twist_moves_the_tool(frame: str):
    robot = rig("twist")
    chain = load_tool_chain(with_interface("twist"), source="tabletop")
    assert chain is not None
    linear = np.array([0.02, -0.03, 0.01])
    robot.send(TwistCommand(stamp_ns=0, frame=frame, linear=linear, angular=np.zeros(3)))
    before = chain.pose(POSE[:6])
    after = chain.pose(robot.drive.target(50 * MS)[:6])
    into = before.rotation if frame == "tool0" else np.eye(3)
    np.testing.assert_allclose(after.position - before.position, into @ linear * 0.05, atol=2e-4)
    np.testing.assert_allclose(after.rotation, before.rotation, atol=2e-3)


@pytest.mark.parametrize(
    ("interface", "command", "words"),
    [
        ("twist", TwistCommand(stamp_ns=0, frame="moon", linear=np.ones(3), angular=np.ones(3)),
         "frame 'moon'"),
        ("joint_jog", JointJogCommand(stamp_ns=0, names=("elbow",), velocities=np.ones(1),
         duration_s=0.1), "unknown joint elbow"),
        ("joint_jog", JointJogCommand(stamp_ns=0, names=NAMES, velocities=np.full(6, np.nan),
         duration_s=0.1), "nan"),
        ("forward_position", ForwardPositionCommand(stamp_ns=0, positions=np.ones(5)), "6 joints"),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_named_and_moves_nothing(interface, command, words: str):
    robot = rig(interface)
    robot.send(command)
    assert words in robot.node.errors[0]
    np.testing.assert_array_equal(robot.drive.target(900 * MS), POSE)
