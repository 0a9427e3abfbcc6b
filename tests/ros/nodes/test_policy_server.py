"""The policy server as its clients see it, with a real policy on a ROS domain of its own."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fastvla_core.errors import CheckpointError, ContractError, FastVLAError
from tests.ros.nodes.goal_calls import Goal, call, change_state, executing
from tests.ros.nodes.robot_rig import CONTRACT, TASK, Stalls, System, save_tiny_policy, wait_until

SETTLE_S = 0.4


def judge(system: System, outcome: int, *, task: str = TASK, detail: str = "seen") -> None:
    from fastvla_msgs.msg import TaskOutcome

    publisher = system.robot.create_publisher(TaskOutcome, "task_outcome", 10)
    wait_until(lambda: publisher.get_subscription_count() > 0, what="the server's subscription")
    publisher.publish(
        TaskOutcome(header=system.robot.header(), task=task, outcome=outcome, detail=detail)
    )


def silent_afterwards(system: System) -> bool:
    """Whether no command comes any more; says so after a while."""
    time.sleep(0.05)
    count = len(system.robot.commands)
    time.sleep(SETTLE_S)
    return len(system.robot.commands) == count


def test_a_goal_runs_until_it_is_judged_done(system: System, checkpoint: Path):
    node = system.serve(checkpoint)
    goal = executing(system, commands=40)
    judge(system, 1)
    report = goal.wait()
    assert (report.status, report.error, report.outcome) == ("SUCCEEDED", "NONE", "success")
    assert report.message == "seen"
    assert report.inferences >= 2
    assert 0 < report.latency_p50_s <= report.latency_p99_s
    assert silent_afterwards(system)
    assert report.commands_sent == len(system.robot.commands)
    assert "EXECUTING" in goal.states
    assert node.latencies
    assert all(0 < path.processing_s <= path.overhead_s for path in node.latencies)


def test_commands_name_every_joint_and_hold_at_the_end(system: System, checkpoint: Path):
    system.serve(checkpoint)
    executing(system, timeout_s=2.0).wait()
    _, last = system.robot.commands[-1]
    assert last.joint_names == list(CONTRACT.action_names)
    (point,) = last.points
    np.testing.assert_allclose(point.positions[:6], system.robot.state[:6], atol=1e-6)
    assert not np.any(point.velocities)
    _, earlier = system.robot.commands[-2]
    assert earlier.points[0].time_from_start.nanosec == round(1e9 / 30)
    moving = [m for _, m in system.robot.commands if np.any(m.points[0].velocities)]
    assert len(moving) >= 3


def test_a_judge_s_failure_aborts_without_an_error_code(system: System, checkpoint: Path):
    system.serve(checkpoint)
    goal = executing(system)
    judge(system, 2, detail="wrong cube")
    report = goal.wait()
    assert (report.status, report.error, report.outcome) == ("ABORTED", "NONE", "failure")
    assert report.message == "wrong cube"


def test_a_verdict_on_another_task_is_not_this_goal_s(system: System, checkpoint: Path):
    system.serve(checkpoint)
    goal = executing(system, timeout_s=2.0)
    judge(system, 1, task="open the drawer")
    assert goal.wait().error == "TIMEOUT"


def test_a_busy_server_rejects(system: System, checkpoint: Path):
    system.serve(checkpoint)
    first = executing(system, timeout_s=3.0)
    assert Goal(system, "push the blue cube aside").wait().status == "REJECTED"
    assert first.wait().error == "TIMEOUT"


def test_preemption_ends_the_old_goal_first(system: System, checkpoint: Path):
    from std_msgs.msg import String

    tasks: list[str] = []
    system.robot.create_subscription(String, "current_task", lambda m: tasks.append(m.data), 10)
    system.serve(checkpoint, on_busy="preempt")
    wait_until(lambda: system.robot.count_publishers("current_task") == 1)
    first = executing(system)
    second = Goal(system, "wave", timeout_s=2.0)
    report = first.wait()
    assert (report.status, report.error) == ("ABORTED", "PREEMPTED")
    assert second.wait().error == "TIMEOUT"
    wait_until(lambda: tasks == [TASK, "", "wave", ""], what="the tasks in their order")


@pytest.mark.parametrize("task", ["", "   "])
def test_an_empty_instruction_is_rejected(system: System, checkpoint: Path, task: str, capfd):
    system.serve(checkpoint)
    assert Goal(system, task).wait().status == "REJECTED"
    assert "the instruction is empty" in capfd.readouterr().err
    assert system.robot.commands == []


def test_a_camera_that_never_publishes_is_named(system: System, checkpoint: Path):
    system.robot.silent = {"wrist"}
    system.serve(checkpoint, sensor_timeout_s=0.5)
    goal = Goal(system)
    report = goal.wait()
    assert report.error == "STALE_SENSOR"
    assert "'wrist' has published nothing yet" in report.message
    assert report.elapsed_s < 2.0
    assert "wrist" in {p.blocking_stream for p in goal.progress}
    assert system.robot.commands == []


def test_a_camera_that_stops_is_held_for_then_named(system: System, checkpoint: Path):
    system.serve(checkpoint, sensor_timeout_s=0.5)
    goal = executing(system)
    system.robot.silent = {"front"}
    report = goal.wait()
    assert report.error == "STALE_SENSOR"
    assert "'front'" in report.message
    assert "HOLDING" in goal.states
    assert silent_afterwards(system)


def test_a_wrong_encoding_is_the_reason_that_is_given(system: System, checkpoint: Path):
    system.robot.encoding = "bgr8"
    system.serve(checkpoint, sensor_timeout_s=0.5)
    report = Goal(system).wait()
    assert report.error == "STALE_SENSOR"
    assert "'bgr8'" in report.message
    assert "to mend" in report.message


def test_deactivation_ends_the_goal_and_rejects_the_next(system: System, checkpoint: Path):
    node = system.serve(checkpoint)
    goal = executing(system)
    with Stalls() as stalls:
        begin = time.monotonic()
        change_state(system, "deactivate")
        report = goal.wait()
        took_s = time.monotonic() - begin
    assert took_s < 0.5 + 8 * stalls.take_s()
    assert (report.status, report.error) == ("ABORTED", "DEACTIVATED")
    assert silent_afterwards(system)
    assert Goal(system).wait().status == "REJECTED"
    assert change_state(system, "activate")
    executing(system, timeout_s=2.0).wait()
    assert change_state(system, "deactivate")
    assert change_state(system, "cleanup")
    assert node.count_publishers("command") == 0


def test_without_autostart_it_waits_unconfigured_and_rejects(system: System, checkpoint: Path):
    node = system.serve(checkpoint, autostart=False)
    assert node.count_publishers("command") == 0
    assert Goal(system).wait().status == "REJECTED"
    assert change_state(system, "configure")
    assert Goal(system).wait().status == "REJECTED"
    assert change_state(system, "activate")
    assert executing(system, timeout_s=2.0).wait().error == "TIMEOUT"


def test_another_checkpoint_is_loaded_while_inactive_only(
    system: System, checkpoint: Path, tmp_path: Path
):
    from fastvla_msgs.srv import LoadCheckpoint

    def load(folder: Path):
        request = LoadCheckpoint.Request(checkpoint_id=str(folder))
        name = "policy_server/load_checkpoint"
        return call(system, name, kind=LoadCheckpoint, request=request)

    other = save_tiny_policy(tmp_path / "other")
    system.serve(checkpoint)
    assert not load(other).success
    assert change_state(system, "deactivate")
    missing = load(tmp_path / "nowhere")
    assert not missing.success
    assert "nowhere" in missing.message
    answer = load(other)
    assert answer.success
    assert answer.checkpoint_id == str(other)
    assert change_state(system, "activate")
    assert executing(system, timeout_s=2.0).wait().error == "TIMEOUT"


def test_the_stop_latches_until_it_is_reset(system: System, checkpoint: Path):
    system.serve(checkpoint)
    goal = executing(system)
    assert call(system, "policy_server/stop").success
    assert goal.wait().error == "SAFETY_STOP"
    assert silent_afterwards(system)
    assert Goal(system).wait().status == "REJECTED"
    assert call(system, "policy_server/reset_stop").success
    goal = executing(system, timeout_s=2.0)
    assert not call(system, "policy_server/reset_stop").success
    assert goal.wait().error == "TIMEOUT"


def test_a_policy_that_gives_nan_moves_nothing(system: System, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    folder = save_tiny_policy(tmp_path / "nan")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "action_out" in name)
    weights[name] = weights[name] * float("nan")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(Exception, match="action chunk"):
        system.serve(folder)
    assert system.robot.commands == []


def test_the_first_inference_is_as_fast_as_the_others(system: System, checkpoint: Path):
    node = system.serve(checkpoint)
    executing(system, timeout_s=3.0).wait()
    took = [p.finished_ns - p.started_ns for p in node.latencies]
    assert took[0] < 10 * np.median(took)


def test_while_it_loads_no_goal_can_wait_to_start_later(
    system: System, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    from fastvla_ros.nodes import policy_server_node

    load, refused = policy_server_node.load_policy, []

    def slow_load(*args, **options):
        wait_until(lambda: "policy_server" in system.robot.get_node_names())
        with pytest.raises(FastVLAError, match="no policy server"):
            system.client.wait_for_server(timeout_s=0.3)
        refused.append(True)
        return load(*args, **options)

    monkeypatch.setattr(policy_server_node, "load_policy", slow_load)
    system.serve(checkpoint)
    assert refused
    system.client.wait_for_server(timeout_s=5.0)


def test_a_missing_checkpoint_is_one_clear_error(system: System, tmp_path: Path):
    with pytest.raises(CheckpointError, match="nowhere"):
        system.serve(tmp_path / "nowhere")
    assert system.robot.count_publishers("command") == 0


def test_a_checkpoint_of_another_robot_is_refused_with_the_differences(
    system: System, tmp_path: Path
):
    joints = (dataclasses.replace(CONTRACT.joints[0], upper=1.0), *CONTRACT.joints[1:])
    other = dataclasses.replace(CONTRACT, name="other", joints=joints)
    folder = save_tiny_policy(tmp_path / "other", contract=other)
    with pytest.raises(ContractError, match=r"joints\.joint1\.upper: 2\.8 here, 1\.0 there"):
        system.serve(folder)


def test_a_truncated_checkpoint_is_one_clear_error(
    system: System, checkpoint: Path, tmp_path: Path
):
    folder = tmp_path / "cut"
    shutil.copytree(checkpoint, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        system.serve(folder)


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"quantization": "int3"}, "quantization"),
        ({"on_busy": "wait"}, "on_busy"),
        ({"execute_steps": 0}, "execute_steps"),
        ({"sensor_timeout_s": -1.0}, "sensor_timeout_s"),
        ({"sensor_timeout_s": "soon"}, "its type is float"),
        ({"default_timeout_s": 0}, "default_timeout_s is 0.0"),
        ({"threads": 1.5}, "its type is int"),
        ({"device": "cuda"}, "no CUDA device"),
    ],
)
def test_a_wrong_parameter_is_named(system: System, checkpoint: Path, parameters, word: str):
    if word == "no CUDA device" and torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(FastVLAError, match=word):
        system.serve(checkpoint, **parameters)


def test_the_current_task_and_the_preview_are_published(system: System, checkpoint: Path):
    from std_msgs.msg import String

    from fastvla_msgs.msg import ActionChunk

    tasks, chunks = [], []
    system.robot.create_subscription(String, "current_task", lambda m: tasks.append(m.data), 10)
    system.robot.create_subscription(ActionChunk, "policy_server/action_chunk", chunks.append, 10)
    system.serve(checkpoint)
    wait_until(lambda: system.robot.count_publishers("current_task") == 1)
    executing(system, timeout_s=2.0).wait()
    wait_until(lambda: tasks == [TASK, ""], what="the current task")
    assert chunks
    assert chunks[0].horizon == 8
    assert len(chunks[0].positions) == 8 * 7
