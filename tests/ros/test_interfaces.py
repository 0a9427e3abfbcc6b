"""The nano policy through server, guard and simulated robot, by every interface of a contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fastvla_core.resources import share_path
from fastvla_core.robot.contract_file import load_contract
from fastvla_ros.bringup_description import BringupOptions
from fastvla_ros.bringup_run import running
from fastvla_ros.demo.domain import reserve_domain
from fastvla_ros.runtime import ensure_ros

TWIST = {
    "urdf": "arm.urdf",
    "base": "base_link",
    "tool": "tool0",
    "frame": "tool",
    "max_linear": 1.0,
    "max_angular": 4.0,
}
DEPTH = {"topic": "wrist/depth", "encoding": "16UC1", "kind": "depth", "width": 96, "height": 96}


def write_contract(path: Path, *, outputs: dict[str, Any], gripper: str, transport: str) -> Path:
    """The table-top robot with other interfaces, a depth camera, and its driver's own names."""
    data = load_contract("tabletop").to_dict()
    data["outputs"] |= outputs
    data["gripper"]["interface"] = gripper
    for name in ("front", "wrist"):
        data["cameras"][name]["transport"] = transport
    data["cameras"]["wrist_depth"] = {**DEPTH, "transport": "compressed_depth", "required": False}
    data["joint_states"]["names"] = {"arm_joint_1": "joint1"}
    urdf = share_path("config/robots/tabletop.urdf").read_text()
    (path.parent / "arm.urdf").write_text(urdf.replace('name="joint1"', 'name="arm_joint_1"'))
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


@pytest.fixture
def own_domain(monkeypatch: pytest.MonkeyPatch):
    ensure_ros()
    with reserve_domain() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        yield domain


@pytest.mark.slow
@pytest.mark.parametrize(
    ("outputs", "gripper", "transport", "task"),
    [
        (
            {"interface": "forward_position", "topic": "forward/commands"},
            "gripper_command",
            "compressed",
            "pick up the red cube",
        ),
        (
            {"interface": "joint_jog", "topic": "servo_node/delta_joint_cmds"},
            "parallel_gripper_command",
            "raw",
            "pick up the red cube",
        ),
        (
            {"interface": "twist", "topic": "servo_node/delta_twist_cmds", "twist": TWIST},
            "parallel_gripper_command",
            "raw",
            "reach the green cube",
        ),
    ],
    ids=["forward_position", "joint_jog", "twist"],
)
def test_the_shipped_policy_does_its_task(  # noqa: PLR0917
    own_domain, tmp_path: Path, outputs, gripper: str, transport: str, task: str
):
    from rclpy.node import Node

    from fastvla_ros.nodes.task_client import TaskClient

    contract = write_contract(
        tmp_path / "robot.yaml", outputs=outputs, gripper=gripper, transport=transport
    )
    options = BringupOptions(
        contract=str(contract), checkpoint="nano", seed=4, use_sim_time=True, log_level="warn"
    )
    with running(options) as graph:
        client = TaskClient(graph.process.add(Node("probe", use_global_arguments=False)))
        try:
            report = client.execute(task, timeout_s=15)
            # This is about the interfaces. The policy misses now and then (through joint_jog about
            # one scene in six on a busy machine), so it gets two further scenes.
            for seed in (5, 6):
                if report.outcome == "success":
                    break
                graph.nodes["sim_robot"].loop.reset(seed).result(2.0)
                report = client.execute(task, timeout_s=15)
        finally:
            client.destroy()
        bridge = graph.nodes["policy_server"]._serving.bridge
        seen = bridge.observe(task)
        dropped = dict(bridge.dropped)
    assert (report.outcome, report.error) == ("success", "NONE"), report
    assert not any(dropped.values())
    depth = seen.depths["wrist_depth"]
    assert depth.shape == (96, 96)
    assert 0.05 < depth[depth > 0].min() < 0.5
