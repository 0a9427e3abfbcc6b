"""What led to an abnormal end of a goal is on disk, whatever ended it."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest

from fastvla_core.bags.definitions import FEEDBACK
from fastvla_core.errors import RosError
from fastvla_core.types import Observation
from fastvla_ros.bringup_description import BringupOptions, describe
from fastvla_ros.bringup_run import NodeProcess
from tests.ros.nodes.robot_rig import CONTRACT, TASK, System, wait_until
from training.bags.reader import open_bag
from training.bags.streams import observe_at

STREAMS = {
    "/front/image_raw", "/wrist/image_raw", "/joint_states", "/command", "/joint_trajectory",
    "/policy_server/action_chunk", "/policy_server/execute_task/_action/feedback",
    "/command_guard/status", "/current_task", "/rosout",
}  # fmt: skip


class BlackBox:
    """The node under test, its folder and what it said."""

    def __init__(self, system: System, folder: Path, **parameters) -> None:
        from rclpy.parameter import Parameter

        from fastvla_ros.nodes.black_box_node import BlackBoxNode

        values = {"directory": str(folder), "after_s": 0.2, **parameters}
        self.folder = folder
        self.node = BlackBoxNode(
            use_global_arguments=False,
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
        )
        self.system = system
        system.process.add(self.node)

    def bags(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(p for p in self.folder.iterdir() if not p.name.endswith(".partial"))

    def wait(self, count: int = 1, *, timeout_s: float = 30.0) -> Path:
        wait_until(lambda: len(self.bags()) >= count, timeout_s=timeout_s, what="the bag")
        return self.bags()[-1]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def run_goal(system: System):
    """Sends a goal, waits for its first commands, and gives the event of its end."""
    from rclpy.action import ActionClient

    from fastvla_msgs.action import ExecuteTask

    client = ActionClient(system.robot, ExecuteTask, "policy_server/execute_task")

    def run() -> threading.Event:
        wait_until(client.server_is_ready, timeout_s=60, what="the server")
        ended = threading.Event()
        before = len(system.robot.commands)
        sent = client.send_goal_async(ExecuteTask.Goal(task=TASK, timeout_s=60.0))
        wait_until(lambda: len(system.robot.commands) > before + 5, timeout_s=60, what="commands")
        sent.result().get_result_async().add_done_callback(lambda _: ended.set())
        return ended

    yield run
    client.destroy()


def test_a_goal_without_its_camera_leaves_everything_that_was_seen(
    system: System, checkpoint: Path, kept: Path, run_goal
):
    box = BlackBox(system, kept)
    system.guard()
    system.serve(checkpoint, sensor_timeout_s=0.5)
    ended = run_goal()
    system.robot.silent = {"wrist"}
    folder = box.wait()
    assert ended.wait(30)
    assert folder.name.endswith("_STALE_SENSOR")
    with open_bag(folder) as bag:
        assert not bag.problems
        assert bag.instruction == TASK
        assert bag.contract == CONTRACT
        assert set(bag.topics) >= STREAMS
        assert bag.topics["/policy_server/execute_task/_action/feedback"].type == FEEDBACK
        (end,) = json.loads(bag.info["fastvla.black_box.ends"])
        assert end["code"] == "STALE_SENSOR"
        assert "wrist" in end["message"]
        times = [message.stamp_ns for message in bag.messages()]
        assert times == sorted(times)
        # What the policy saw can be built again from it.
        seen = observe_at(bag, contract=CONTRACT, task=TASK, at_ns=times[:: len(times) // 20])
        # On a busy machine some instants lack a fresh camera; the policy saw others.
        whole = [found for found in seen if isinstance(found, Observation)]
        assert whole
        assert whole[0].images["front"].shape == (96, 96, 3)


def test_ends_that_somebody_asked_for_leave_nothing(
    system: System, checkpoint: Path, kept: Path, run_goal
):
    box = BlackBox(system, kept)
    server = system.serve(checkpoint)
    ended = run_goal()
    server.trigger_deactivate()
    assert ended.wait(30)
    server.trigger_activate()
    ended = run_goal()
    call_trigger(system, "policy_server/stop")
    assert ended.wait(30)
    assert box.wait().name.endswith("_SAFETY_STOP")
    assert len(box.bags()) == 1


def test_a_killed_server_leaves_its_last_seconds(
    system: System, checkpoint: Path, kept: Path, run_goal
):
    box = BlackBox(system, kept)
    options = BringupOptions(checkpoint=str(checkpoint), quantization="none", log_level="error")
    spec = next(spec for spec in describe(options) if spec.name == "policy_server")
    with NodeProcess(spec, options=options) as server:
        run_goal()
        os.kill(server.pid, signal.SIGKILL)
        folder = box.wait()
    assert folder.name.split("_", 1)[1] in ("SERVER_GONE", "SERVER_SILENT")
    with open_bag(folder) as bag:
        assert bag.instruction == TASK
        assert bag.topics["/command"].count > 5


def test_stopped_together_with_a_killed_server_it_still_keeps_the_bag(
    system: System, checkpoint: Path, kept: Path, run_goal
):
    box = BlackBox(system, kept)
    options = BringupOptions(checkpoint=str(checkpoint), quantization="none", log_level="error")
    spec = next(spec for spec in describe(options) if spec.name == "policy_server")
    with NodeProcess(spec, options=options) as server:
        run_goal()
        os.kill(server.pid, signal.SIGKILL)
        box.node.prepare_shutdown()
    (folder,) = box.bags()
    assert folder.name.endswith("_SERVER_GONE")


def test_it_can_be_asked_for(system: System, kept: Path):
    box = BlackBox(system, kept)
    wait_until(lambda: box.node.count_publishers("/joint_states") > 0, what="the robot")
    assert call_trigger(system, "black_box/keep").success
    with open_bag(box.wait()) as bag:
        assert not bag.instruction
        assert "/joint_states" in bag.topics


def test_a_folder_that_cannot_be_written_is_one_message_and_nothing_else(
    system: System, tmp_path: Path, capfd
):
    (tmp_path / "file").write_text("")
    box = BlackBox(system, tmp_path / "file")
    call_trigger(system, "black_box/keep")
    wait_until(lambda: "cannot be written" in (said := capfd.readouterr().err) or said, what="")
    assert call_trigger(system, "black_box/keep").success
    assert box.node.count_subscribers("/joint_states") > 0


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [("seconds", 0.0, "1 or more"), ("keep", "many", "int"), ("directory", 7, "str")],
)
def test_a_wrong_parameter_is_refused_in_words(system: System, kept: Path, name, value, mend):
    with pytest.raises(RosError, match=name) as caught:
        BlackBox(system, kept, **{name: value})
    assert mend in caught.value.mend


def call_trigger(system: System, name: str):
    from std_srvs.srv import Trigger

    client = system.robot.create_client(Trigger, name)
    assert client.wait_for_service(timeout_sec=10.0)
    done = threading.Event()
    future = client.call_async(Trigger.Request())
    future.add_done_callback(lambda _: done.set())
    assert done.wait(10)
    system.robot.destroy_client(client)
    return future.result()
