"""The whole graph, with the scripted expert in the policy's place: real topics, guard, gripper."""

import json
import os

import pytest

from fastvla_core.errors import FastVLAError, SimError
from fastvla_core.robot.contract_file import load_contract
from fastvla_ros.bringup_description import BringupOptions
from fastvla_ros.bringup_run import running
from fastvla_ros.demo.domain import reserve_domain
from fastvla_ros.runtime import ensure_ros
from tests.ros.expert_policy import ExpertPolicy


@pytest.fixture
def own_domain(monkeypatch):
    with reserve_domain() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        yield domain


@pytest.fixture
def expert(monkeypatch):
    """Every policy server of this process loads the expert."""
    ensure_ros()
    from fastvla_ros.nodes import policy_server_node, sim_robot_node

    robots = []
    make = sim_robot_node.SimRobotNode.__init__

    def remember(self, **options):
        robots.append(self)
        make(self, **options)

    monkeypatch.setattr(sim_robot_node.SimRobotNode, "__init__", remember)
    policy = ExpertPolicy(lambda: robots[-1].loop, names=load_contract("tabletop").action_names)
    monkeypatch.setattr(policy_server_node, "load_policy", lambda *_, **__: policy)
    return policy


@pytest.fixture
def graph(own_domain, expert):
    # Simulated time: a busy machine may be slow, but it does not fail these tests.
    options = BringupOptions(
        checkpoint="expert", seed=4, use_sim_time=True, log_level="warn", black_box=False
    )
    with running(options) as bringup:
        yield bringup


@pytest.fixture
def client(graph):
    from rclpy.node import Node

    from fastvla_ros.nodes.task_client import TaskClient

    client = TaskClient(graph.process.add(Node("probe", use_global_arguments=False)))
    yield client
    client.destroy()


def test_a_pick_succeeds_through_topics_guard_and_gripper(graph, client, expert):
    seen = []
    report = client.execute("pick up the red cube", timeout_s=15, on_progress=seen.append)
    assert (report.outcome, report.error) == ("success", "NONE"), report
    assert report.inferences >= 5
    assert report.commands_sent > 30
    assert "EXECUTING" in {progress.state for progress in seen}
    assert max(progress.chunk_index for progress in seen) > 3
    ages_s = [progress.oldest_age_s for progress in seen if progress.state == "EXECUTING"]
    assert 0 < min(ages_s) < 0.5
    sim_z = graph.nodes["sim_robot"].loop.submit(lambda sim: sim.cube("red").position[2])
    assert sim_z.result(2.0) > 0.08


def test_a_goal_after_a_reset_is_judged_anew(graph, client):
    for seed in (11, 12):
        graph.nodes["sim_robot"].loop.reset(seed).result(2.0)
        report = client.execute("reach the green cube", timeout_s=15)
        assert report.outcome == "success", report


def test_a_goal_that_cannot_be_done_in_time_has_not_succeeded(graph, client):
    report = client.execute("stack the red cube on the blue cube", timeout_s=1.0)
    assert report.error == "TIMEOUT"
    assert report.outcome != "success"


def test_ctrl_c_cancels_the_goal(graph, client):
    def interrupt(progress):
        if progress.state == "EXECUTING" and not pressed:
            pressed.append(True)

    pressed = []

    def watch():
        if len(pressed) == 1:
            pressed.append(True)
            raise KeyboardInterrupt

    report = client.execute(
        "put the red cube in the bowl", timeout_s=15, on_progress=interrupt, watch=watch
    )
    assert report.status == "CANCELED"


def test_a_guard_that_dies_ends_the_goal_with_a_message(graph, client):
    killed = []

    def kill(progress):
        if progress.state == "EXECUTING" and not killed:
            killed.append(os.kill(graph.children[0].pid, 9))

    with pytest.raises(FastVLAError, match="'command_guard' ended unexpectedly"):
        client.execute(
            "put the red cube in the bowl", timeout_s=15, on_progress=kill, watch=graph.check
        )
    # The next tests must not wait for this goal.
    graph.nodes["policy_server"].trigger_deactivate()


def test_a_simulation_that_breaks_ends_the_goal_with_its_own_message(graph, client):
    def break_down(progress):
        if progress.state == "EXECUTING":
            loop = graph.nodes["sim_robot"].loop
            loop.submit(lambda sim: setattr(sim, "render", no_more_graphics))

    def no_more_graphics(_camera):
        raise SimError("the graphics driver is gone", mend="restart it")

    with pytest.raises(SimError, match="the graphics driver is gone"):
        client.execute(
            "put the red cube in the bowl", timeout_s=30, on_progress=break_down, watch=graph.check
        )
    graph.nodes["policy_server"].trigger_deactivate()


def test_the_demo_writes_video_plot_and_table(own_domain, expert, tmp_path, capsys, monkeypatch):
    import av

    from fastvla_core.cli import main
    from fastvla_ros.commands_cli import bringup

    monkeypatch.setattr(bringup, "check_options", lambda _options: None)
    arguments = ["demo", "--goals", "pick up the blue cube", "reach the red cube", "--json"]
    status = main([*arguments, "--out", str(tmp_path / "new" / "out")])
    report = json.loads(capsys.readouterr().out)
    assert [goal["outcome"] for goal in report["goals"]] == ["success", "success"]
    assert status == 0
    with av.open(report["video"]) as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert frames > 10
    assert (tmp_path / "new" / "out" / "demo.png").stat().st_size > 10_000


def test_a_goal_that_fails_makes_the_demo_fail(own_domain, expert, tmp_path, capsys, monkeypatch):
    from fastvla_core.cli import main
    from fastvla_ros.commands_cli import bringup

    monkeypatch.setattr(bringup, "check_options", lambda _options: None)
    arguments = ["demo", "--goals", "stack the red cube on the blue cube", "--timeout", "1"]
    assert main([*arguments, "--out", str(tmp_path)]) == 1
    table = capsys.readouterr().out
    assert "stack the red cube on the blue cube" in table
    assert "TIMEOUT" in table
