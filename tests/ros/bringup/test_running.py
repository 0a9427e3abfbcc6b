"""The running graph: namespaces, parameter files, cameras that say nothing."""

import threading
import time

import pytest

from fastvla_core.errors import FastVLAError
from fastvla_ros.bench.pipeline import without_model
from fastvla_ros.bringup_description import BringupOptions, describe
from fastvla_ros.bringup_run import running
from fastvla_ros.bringup_spin import SharedProcess
from fastvla_ros.demo.domain import reserve_domain


@pytest.fixture(autouse=True)
def own_domain(monkeypatch):
    with reserve_domain() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        yield


def bring_up(**changes):
    options = BringupOptions(use_sim_time=True, log_level="error", black_box=False, **changes)
    return running(options, specs=[without_model(spec) for spec in describe(options)])


def execute(bringup, task, *, namespace="", **options):
    from rclpy.node import Node

    from fastvla_ros.nodes.task_client import TaskClient

    node = Node("probe", namespace=namespace or None, use_global_arguments=False)
    client = TaskClient(bringup.process.add(node))
    report = client.execute(task, **options)
    client.destroy()
    return report


def test_a_namespace_moves_every_node_and_topic():
    with bring_up(namespace="left") as bringup:
        report = execute(bringup, "sway", namespace="left", timeout_s=1.5)
        assert report.error == "TIMEOUT"
        assert report.commands_sent > 10
        server = bringup.nodes["policy_server"]
        names = {name for name, _ in server.get_topic_names_and_types()}
        assert {"/left/command", "/left/joint_trajectory", "/left/front/image_raw"} <= names
        assert "/command" not in names


def test_a_camera_that_never_publishes_ends_the_goal_and_is_named(tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text("/**:\n  ros__parameters:\n    camera_rate_hz: 0.0\n")
    with bring_up(params_file=str(params)) as bringup:
        report = execute(bringup, "sway", timeout_s=30)
    assert report.error == "STALE_SENSOR"
    assert "stream 'front' has published nothing yet" in report.message
    assert report.commands_sent == 0


def test_an_empty_instruction_is_rejected_by_the_server_too():
    with bring_up() as bringup:
        assert execute(bringup, " ").status == "REJECTED"


def test_without_a_server_the_client_says_so():
    with SharedProcess() as process:
        from rclpy.node import Node

        from fastvla_ros.nodes.task_client import NoServerError, TaskClient

        client = TaskClient(process.add(Node("probe", use_global_arguments=False)))
        with pytest.raises(NoServerError, match="nobody serves the action"):
            client.execute("pick up the red cube", server_timeout_s=0.3)
        client.destroy()


def test_simulated_time_can_go_faster_only_where_everybody_follows_it(tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text("sim_robot:\n  ros__parameters:\n    time_scale: 2.0\n")
    options = BringupOptions(params_file=str(params), log_level="error")
    robot = [spec for spec in describe(options) if spec.name == "sim_robot"]
    with pytest.raises(FastVLAError, match="time_scale is 2"), running(options, specs=robot):
        pass


def test_a_process_whose_nodes_have_nothing_to_do_ends_at_once():
    with SharedProcess() as process:
        from rclpy.node import Node

        node = Node("idle", use_global_arguments=False, start_parameter_services=False)
        process.add(node)
        time.sleep(0.3)
        begin = time.monotonic()
    assert time.monotonic() - begin < 3.0
    assert "executor" not in {thread.name for thread in threading.enumerate()}
