"""The doctor on a robot that runs, and where nothing does."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fastvla_ros.doctor import examination
from fastvla_ros.doctor.examination import Options
from fastvla_ros.doctor.observing import observe_within
from tests.ros.nodes.robot_rig import CONTRACT, System


def robot_findings(system: System, *, namespace: str = ""):
    graph = observe_within(system.process, CONTRACT, namespace=namespace, listen_s=1.5)
    return list(examination.look_at(graph, CONTRACT))


def faults(findings):
    # On a loaded machine rates are what they are; the unit tests look at them.
    return [f for f in findings if f.level != "ok" and f.name not in ("rates", "stamps")]


def test_nothing_runs_is_one_line_and_takes_a_moment(domain_id: int):
    begin = time.monotonic()
    (finding,) = examination._check_robot(Options())
    assert time.monotonic() - begin < 15
    assert finding.level == "ok"
    assert f"nothing runs on domain {domain_id}" in finding.detail
    assert "fastvla bringup" in finding.detail


def test_a_robot_that_is_well(system: System, checkpoint: Path):
    system.guard()
    system.serve(checkpoint)
    findings = robot_findings(system)
    # The rig has no camera for people.
    (only,) = faults(findings)
    assert only.level == "warning"
    assert "/scene/image_raw" in only.detail
    told = {finding.name: finding.detail for finding in findings if finding.level == "ok"}
    assert told["policy server"] == "/policy_server is active"
    assert told["controller"] == "/robot listens to '/joint_trajectory'"
    assert told["gripper"] == "/robot serves '/gripper_controller/gripper_cmd'"
    assert told["time"] == "the system's"
    assert "front 96x96" in told["cameras"]
    assert "joint1 0.00" in told["joints"]
    assert told["guard"] == "/command_guard runs"


def test_a_robot_with_every_kind_of_fault(system: System, checkpoint: Path):
    from rclpy.node import Node
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import CompressedImage, Image

    system.serve(checkpoint, autostart=False)
    system.robot.encoding = "bgr8"
    other = system.process.add(Node("viewer", use_global_arguments=False))
    reliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
    other.create_subscription(Image, "front/image_raw", lambda _: None, reliable)
    other.create_publisher(CompressedImage, "scene/image_raw", 1)
    said = "\n".join(f"{f.name}: {f.detail}" for f in faults(robot_findings(system)))
    for word in (
        "policy server: /policy_server is unconfigured",
        "guard: /command_guard does not run",
        "qos: '/front/image_raw': /robot offers reliability BEST_EFFORT, /viewer asks for RELIABLE",
        "types: /viewer has '/scene/image_raw' as sensor_msgs/msg/CompressedImage",
        "cameras: front",
    ):
        assert word in said


@pytest.mark.parametrize("namespace", ["left", "/left"])
def test_a_robot_elsewhere_is_not_this_one(system: System, namespace: str):
    said = [f.detail for f in faults(robot_findings(system, namespace=namespace))]
    assert any("/left/policy_server does not run" in detail for detail in said)
    assert sum("nobody publishes '/left/" in detail for detail in said) == 1 + len(CONTRACT.cameras)
