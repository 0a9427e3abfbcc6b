"""Each policy with stored reference results drives the simulated robot: server, guard, limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvla_core.contract_binding import RobotBinding
from fastvla_core.policy import FastVLA
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.robot.limits import motion_limits
from fastvla_ros.bringup_description import BringupOptions
from fastvla_ros.bringup_run import running
from fastvla_ros.demo.domain import reserve_domain

DATA = Path(__file__).parents[1] / "parity/data"
CONTRACT = load_contract("tabletop")
PI_CAMERAS = {"base_0_rgb": "front", "left_wrist_0_rgb": "wrist", "right_wrist_0_rgb": None}
CAMERAS: dict[str, dict[str, str | None]] = {
    "smolvla": {"top": "front"},
    "pi0": PI_CAMERAS,
    "pi05": PI_CAMERAS,
    "pi0_fast": PI_CAMERAS,
    "act": {},
    "diffusion": {},
    "diffusion_ddim": {},
}
# What pi0-FAST was overfitted on; the others take any instruction.
TASK = "pick up the red cube"
GOAL_S = 2.0
ROUNDING = 1e-4
# Of sixty that an idle machine sends.
FEWEST = 5


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every stored policy, bound to the table-top robot."""
    folders: dict[str, Path] = {}
    for name, cameras in CAMERAS.items():
        policy = FastVLA.from_pretrained(
            DATA / name / "checkpoint",
            contract=CONTRACT,
            binding=RobotBinding(cameras=cameras, action_dt_s=0.1),
        )
        folders[name] = tmp_path_factory.mktemp("bound") / name
        policy.save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="module")
def graph(checkpoints: dict[str, Path]) -> Iterator[Any]:
    """Simulated robot, guard and policy server; simulated time, so that a busy machine is slow."""
    options = BringupOptions(
        checkpoint=str(checkpoints["act"]),
        quantization="none",
        seed=4,
        use_sim_time=True,
        log_level="error",
        black_box=False,
    )
    with pytest.MonkeyPatch.context() as patch, reserve_domain() as domain:
        patch.setenv("ROS_DOMAIN_ID", str(domain))
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        with running(options) as bringup:
            yield bringup


class Listener:
    """Keeps what the server asks for and what the guard lets through."""

    def __init__(self, node: Any) -> None:
        from trajectory_msgs.msg import JointTrajectory

        self.asked: list[Any] = []
        self.let_through: list[Any] = []
        for topic, kept in (
            (CONTRACT.outputs.command, self.asked),
            (CONTRACT.outputs.topic, self.let_through),
        ):
            node.create_subscription(JointTrajectory, topic, kept.append, 50)


@pytest.fixture(scope="module")
def probe(graph: Any) -> Iterator[tuple[Any, Any, Listener]]:
    from rclpy.node import Node

    from fastvla_ros.nodes.task_client import TaskClient

    node = graph.process.add(Node("probe", use_global_arguments=False))
    client = TaskClient(node)
    yield node, client, Listener(node)
    client.destroy()


def call(node: Any, name: str, kind: Any, request: Any) -> Any:
    from tests.ros.nodes.goal_calls import done

    client = node.create_client(kind, name)
    assert client.wait_for_service(timeout_sec=10.0)
    response = done(client.call_async(request), what=name)
    node.destroy_client(client)
    return response


def load(node: Any, folder: Path) -> None:
    """Change the served policy, as an operator would."""
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    from fastvla_msgs.srv import LoadCheckpoint, ResetScene

    def change(transition: int) -> None:
        request = ChangeState.Request()
        request.transition.id = transition
        assert call(node, "policy_server/change_state", ChangeState, request).success

    change(Transition.TRANSITION_DEACTIVATE)
    request = LoadCheckpoint.Request(checkpoint_id=str(folder))
    answer = call(node, "policy_server/load_checkpoint", LoadCheckpoint, request)
    assert answer.success, answer.message
    # The policy before may have left the arm where the table pushes it beyond its limits.
    assert call(node, "sim_robot/reset", ResetScene, ResetScene.Request(seed=4)).success
    change(Transition.TRANSITION_ACTIVATE)


def table(messages: list[Any], kind: str) -> np.ndarray:
    """Positions or velocities of messages, one row each, in the contract's order."""
    rows = []
    for message in messages:
        (point,) = message.points
        found = dict(zip(message.joint_names, getattr(point, kind), strict=True))
        rows.append([found[name] for name in CONTRACT.action_names if name in found])
    return np.array(rows)


@pytest.mark.parametrize("policy", CAMERAS)
def test_random_weights_move_the_robot_within_its_limits_and_the_goal_ends_in_words(
    policy: str, graph: Any, probe: tuple[Any, Any, Listener], checkpoints: dict[str, Path]
):
    node, client, heard = probe
    load(node, checkpoints[policy])
    heard.asked.clear()
    heard.let_through.clear()
    report = client.execute(TASK, timeout_s=GOAL_S)
    graph.check()
    # Random weights may also push the cube out of reach; the robot then says so.
    assert report.error == "TIMEOUT" or report.outcome == "failure", report
    assert report.message
    # On a busy machine one inference may take most of the goal's time.
    assert report.inferences >= 1
    assert report.commands_sent >= FEWEST
    limits = motion_limits(CONTRACT)
    for messages in (heard.asked, heard.let_through):
        positions, velocities = table(messages, "positions"), table(messages, "velocities")
        columns = positions.shape[1]  # the gripper's come by its own action
        assert len(positions) >= FEWEST
        assert np.ptp(positions, axis=0).max() > 0.01
        # The server holds where the arm was measured, which may have swung past a limit by its
        # momentum; the guard does not let even that through.
        planned = positions
        if messages is heard.asked:
            planned = positions[(velocities != 0).any(axis=1)]
        assert (planned >= limits.lower[:columns] - ROUNDING).all()
        assert (planned <= limits.upper[:columns] + ROUNDING).all()
        assert (np.abs(velocities) <= limits.velocity[:columns] + ROUNDING).all()
