"""A policy that takes 200 ms longer, on the whole graph: commands keep the contract's limits."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from fastvla_core.policy import FastVLA
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.robot.limits import motion_limits
from fastvla_ros.bringup_description import BringupOptions
from fastvla_ros.bringup_run import running
from fastvla_ros.demo.domain import reserve_domain
from fastvla_ros.runtime import ensure_ros

CONTRACT = load_contract("tabletop")
LATENCY_NS = 200_000_000
MERGES = ("auto", "switch", "ensemble", "rtc", "rtc_trained")


class SlowPolicy:
    """The nano policy, whose chunks come at least 200 ms of the robot's time after what was seen.

    It passes for one that was trained for prefixes: here its motion matters, not its success.
    """

    device = "cpu"

    def __init__(self, now_ns) -> None:
        self._now_ns = now_ns
        self._policy = FastVLA.from_pretrained("nano").reconfigured(max_prefix_steps=4)
        self.conditionings = self._policy.conditionings
        self.frozen: list[int] = []

    def reset(self, seed=0):
        self._policy.reset(seed)

    def infer(self, observation, *, prefix=None):
        chunk = self._policy.infer(observation, prefix=prefix)
        if prefix is not None:
            self.frozen.append(prefix.frozen)
        give_up = time.monotonic() + 60
        while self._now_ns() < observation.stamp_ns + LATENCY_NS and time.monotonic() < give_up:
            time.sleep(0.002)
        return chunk


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch):
    """Every policy server of this process loads it."""
    ensure_ros()
    from fastvla_ros.nodes import policy_server_node, sim_robot_node

    robots = []
    make = sim_robot_node.SimRobotNode.__init__

    def remember(self, **options):
        robots.append(self)
        make(self, **options)

    monkeypatch.setattr(sim_robot_node.SimRobotNode, "__init__", remember)
    # The robot is made later.
    policy = SlowPolicy(lambda: robots[-1].loop.stamp_ns())  # noqa: PLW0108
    monkeypatch.setattr(policy_server_node, "load_policy", lambda *_, **__: policy)
    return policy


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, policy, request):
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text(
        "policy_server:\n  ros__parameters:\n"
        f"    chunk_merge: {request.param}\n"
        "    inference_timeout_s: 100.0\n    sensor_timeout_s: 100.0\n"
    )
    with reserve_domain() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        # Simulated time: a busy machine may be slow, but it does not fail these tests.
        options = BringupOptions(
            params_file=str(parameters),
            seed=4,
            use_sim_time=True,
            log_level="warn",
            black_box=False,
        )
        with running(options) as bringup:
            yield bringup


@pytest.fixture
def holds(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Stamps of the commands that hold: a machine that is too busy for sensors has some."""
    from fastvla_ros.nodes.goal_motion import GoalMotion

    stamps: set[int] = set()
    hold = GoalMotion.hold

    def remember(self, *, now_ns):
        command = hold(self, now_ns=now_ns)
        if command is not None:
            stamps.add(command.stamp_ns)
        return command

    monkeypatch.setattr(GoalMotion, "hold", remember)
    return stamps


@pytest.mark.slow
@pytest.mark.parametrize("graph", MERGES, indirect=True)
def test_commands_of_a_slow_policy_keep_velocity_and_acceleration(holds, graph, policy, request):
    from rclpy.node import Node
    from trajectory_msgs.msg import JointTrajectory

    from fastvla_ros.bridge.joints import stamp_ns
    from fastvla_ros.nodes.task_client import TaskClient

    probe = graph.process.add(Node("probe", use_global_arguments=False))
    sent: list[JointTrajectory] = []
    probe.create_subscription(JointTrajectory, "command", sent.append, 1000)
    client = TaskClient(probe)
    merge = request.node.callspec.params["graph"]
    # A reach may be over before a second chunk continues the first.
    task = "pick up the red cube" if merge == "rtc" else "reach the red cube"
    report = client.execute(task, timeout_s=120)
    client.destroy()
    if merge != "rtc_trained":
        assert (report.outcome, report.error) == ("success", "NONE"), report
    if merge.startswith("rtc"):
        assert policy.frozen
        assert max(policy.frozen) >= 2
    motions: list[list[tuple[int, list[float]]]] = [[]]
    for message in sent:
        at_ns = stamp_ns(message.header.stamp)
        if at_ns in holds:
            motions.append([])
        elif not motions[-1] or at_ns > motions[-1][-1][0]:  # the clock stands still now and then
            motions[-1].append((at_ns, list(message.points[0].positions)))
    assert sum(map(len, motions)) > 10
    limits = motion_limits(CONTRACT)
    for motion in filter(None, motions):
        # A tick that comes early moves for less than a period; a late one does not make up for it.
        step_s = np.diff([at_ns for at_ns, _ in motion])[:, None] * 1e-9
        step_s = np.minimum(step_s, 1 / CONTRACT.control_rate_hz)
        velocity = np.diff([positions for _, positions in motion], axis=0) / step_s
        acceleration = np.diff(velocity, axis=0) / step_s[1:]
        assert (np.abs(velocity) <= limits.velocity + 1e-6).all()
        assert (np.abs(acceleration) <= limits.acceleration * (1 + 1e-3)).all()
