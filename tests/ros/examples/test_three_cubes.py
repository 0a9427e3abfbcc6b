"""The example's tree beside real nodes: every way a goal can end has its reaction."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastvla_core.errors import ObservationError
from fastvla_core.types import ActionChunk
from fastvla_ros.examples.behaviour_tree import main, run_tree
from tests.ros.nodes.goal_calls import GoalCaller, SteadyPolicy, call, change_state, executing
from tests.ros.nodes.robot_rig import System, executable, wait_until

TASKS = ("put the red cube in the bowl", "put the green cube in the bowl")


class Run:
    """A tree that is ticked in a thread of its own, as the example's main thread does."""

    def __init__(self, system: System, tasks: tuple[str, ...] = TASKS[:1], **options: Any) -> None:
        from fastvla_ros.examples.three_cubes import ThreeCubes, TreeOptions

        options = {"trays": False, "goal_timeout_s": 30.0, "patience_s": 20.0, **options}
        self.tree = ThreeCubes(system.robot, tasks, options=TreeOptions(**options))
        self.said: list[str] = []
        self.stop = threading.Event()
        self.succeeded: bool | None = None
        self._thread = threading.Thread(target=self._tick, daemon=True)
        self._thread.start()

    def _tick(self) -> None:
        self.succeeded = run_tree(self.tree, say=self.said.append, until=self.stop.is_set)

    def end(self, timeout_s: float = 60.0) -> bool:
        """Whether the tree succeeded."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), self.said
        assert self.succeeded is not None, "the tree raised an error"
        return self.succeeded

    def cancel(self) -> None:
        self.stop.set()
        self._thread.join(20.0)

    @property
    def errors(self) -> list[str]:
        """How the goals ended, those of all leaves."""
        return [report.error for leaf in self.tree.leaves for report in leaf.reports]

    @property
    def calls(self) -> list[str]:
        return self.tree.cell.calls


@pytest.fixture
def start(system: System) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(*arguments: Any, **options: Any) -> Run:
        runs.append(Run(system, *arguments, **options))
        return runs[-1]

    yield begin
    for run in runs:
        run.cancel()


@pytest.fixture
def judge(system: System) -> Iterator[Callable[[], None]]:
    """Sees every task done that runs half a second, once it is told to look."""
    from std_msgs.msg import String

    from fastvla_msgs.msg import TaskOutcome
    from fastvla_ros.nodes.policy_server_links import LATCHED

    looks, running = threading.Event(), [""]
    publisher = system.robot.create_publisher(TaskOutcome, "task_outcome", 10)

    def tell() -> None:
        if looks.is_set() and running[0]:
            publisher.publish(
                TaskOutcome(
                    header=system.robot.header(), task=running[0], outcome=TaskOutcome.SUCCESS
                )
            )

    system.robot.create_subscription(
        String, "current_task", lambda message: running.__setitem__(0, message.data), LATCHED
    )
    system.robot.create_timer(0.5, tell)
    yield looks.set
    looks.clear()


def moving(system: System, *, commands: int = 3) -> None:
    """Wait for a goal that moves the robot."""
    before = len(system.robot.commands)
    wait_until(
        lambda: len(system.robot.commands) >= before + commands, timeout_s=30, what="commands"
    )


def ended(run: Run, count: int = 1) -> None:
    wait_until(lambda: len(run.errors) >= count, timeout_s=30, what="the end of a goal")


def test_one_task_after_the_other(system: System, steady, start, judge):
    system.serve("steady")
    judge()
    run = start(TASKS)
    assert run.end()
    assert run.errors == ["NONE", "NONE"]
    assert [leaf.reports[0].task for leaf in run.tree.leaves] == list(TASKS)
    assert run.calls == []


def test_somebody_near_cancels_the_goal_and_work_goes_on_when_they_leave(
    system: System, steady, start, judge
):
    from std_msgs.msg import Bool

    system.serve("steady")
    near = system.robot.create_publisher(Bool, "person_in_cell", 10)
    run = start()
    wait_until(near.get_subscription_count, what="the cell")
    moving(system)
    near.publish(Bool(data=True))
    wait_until(lambda: run.said[-1].startswith("wait"), what="holding still")
    wait_until(lambda: not run.tree.client.busy, what="the cancel")
    wait_until(lambda: not run.tree.cell.running_task, what="the end of the task")
    sent = len(system.robot.commands)
    time.sleep(0.5)
    assert len(system.robot.commands) == sent
    near.publish(Bool(data=False))
    moving(system)
    judge()
    assert run.end()
    # What the tree canceled itself is no failure that it would have to react to.
    assert run.errors == ["NONE"]


def test_a_camera_that_comes_back_is_waited_for(system: System, steady, start, judge):
    system.serve("steady", sensor_timeout_s=0.5)
    run = start()
    moving(system)
    system.robot.silent.add("front")
    ended(run)
    system.robot.silent.clear()
    judge()
    assert run.end()
    assert run.errors[0] == "STALE_SENSOR"
    assert run.errors[-1] == "NONE"
    assert any("pause for the sensor" in line for line in run.said)


def test_a_camera_that_stays_away_is_a_call_for_help(system: System, steady, start):
    system.serve("steady", sensor_timeout_s=0.3)
    system.robot.silent.add("front")
    run = start(backoff_s=0.1)
    assert not run.end()
    assert run.errors == ["STALE_SENSOR"] * 4
    (told,) = run.calls
    assert "STALE_SENSOR" in told
    assert "front" in told


def test_a_stop_is_for_people(system: System, steady, start):
    from std_msgs.msg import String

    from fastvla_ros.nodes.policy_server_links import LATCHED

    heard: list[str] = []
    system.robot.create_subscription(
        String, "help_wanted", lambda message: heard.append(message.data), LATCHED
    )
    system.serve("steady")
    run = start()
    moving(system)
    call(system, "policy_server/stop")
    assert not run.end()
    assert run.errors == ["SAFETY_STOP"]
    wait_until(lambda: heard, what="the call")
    assert "reset_stop" in heard[0]


def test_a_guard_that_comes_back_is_waited_for(system: System, steady, start, judge):
    system.serve("steady")
    with executable("command_guard") as guard:
        run = start()
        moving(system)
        wait_until(lambda: run.tree.cell.guard_is_there, timeout_s=30, what="the guard's status")
        guard.kill()
        ended(run)
    wait_until(lambda: "the guard is back" in run.said[-1], what="waiting for the guard")
    with executable("command_guard"):
        judge()
        assert run.end()
    assert run.errors == ["CONTROLLER_LOST", "NONE"]


def test_a_deadline_gives_one_more_try(system: System, steady, start):
    system.serve("steady")
    run = start(goal_timeout_s=0.5)
    assert not run.end()
    assert run.errors == ["TIMEOUT", "TIMEOUT"]
    assert "often enough" in run.calls[0]


def test_whoever_preempts_has_their_turn_first(system: System, steady, start, judge):
    system.serve("steady", on_busy="preempt")
    run = start()
    moving(system)
    other = executing(system, task="wave", timeout_s=3.0)
    assert other.wait().error == "TIMEOUT"
    judge()
    assert run.end()
    assert run.errors == ["PREEMPTED", "NONE"]


def test_a_server_that_is_deactivated_is_waited_for(system: System, steady, start, judge):
    system.serve("steady")
    run = start()
    moving(system)
    assert change_state(system, "deactivate")
    ended(run)
    wait_until(lambda: "is it active?" in run.said[-1], what="asking for the state")
    assert change_state(system, "activate")
    judge()
    assert run.end()
    assert run.errors == ["DEACTIVATED", "NONE"]


def test_a_server_that_is_busy_is_asked_again(system: System, steady, start, judge):
    system.serve("steady")
    other = executing(system, task="wave", timeout_s=1.0)
    run = start()
    ended(run)
    other.wait()
    judge()
    assert run.end()
    assert run.errors[0] == "REJECTED"
    assert run.errors[-1] == "NONE"


def test_a_goal_that_somebody_else_cancels_is_not_sent_again(system: System, steady, start):
    from action_msgs.srv import CancelGoal

    system.serve("steady")
    run = start()
    moving(system)
    # All goals, as `ros2 service call .../_action/cancel_goal` asks with an empty request.
    call(system, "policy_server/execute_task/_action/cancel_goal", kind=CancelGoal)
    assert not run.end()
    assert run.errors == ["CANCELED"]
    assert "somebody else" in run.calls[0]


class BrokenPolicy(SteadyPolicy):
    """Gives a chunk of other joints."""

    def infer(self, observation: Any, *arguments: Any, **options: Any) -> ActionChunk:
        chunk = super().infer(observation, *arguments, **options)
        return dataclasses.replace(chunk, names=tuple(f"other_{name}" for name in chunk.names))


@pytest.mark.parametrize("error", ["INVALID_ACTION", "INFERENCE_FAILED", "UNKNOWN"])
def test_a_policy_or_a_server_that_is_broken_is_for_people(
    system: System, steady: SteadyPolicy, start, monkeypatch, error: str
):
    from fastvla_ros.nodes import policy_server_node
    from fastvla_ros.nodes.goal_session import GoalSession

    def defect(*_: Any) -> None:
        raise RuntimeError("a defect")

    if error == "INVALID_ACTION":
        monkeypatch.setattr(policy_server_node, "load_policy", lambda *_, **__: BrokenPolicy())
    system.serve("steady")
    if error == "INFERENCE_FAILED":
        steady.error = ObservationError("another camera", mend="plug it in")
    if error == "UNKNOWN":
        monkeypatch.setattr(GoalSession, "tick", defect)
    run = start()
    assert not run.end()
    assert run.errors == [error]
    assert error in run.calls[0]


def test_a_task_that_nobody_sees_done_gets_one_more_try(system: System, steady, start):
    from fastvla_msgs.msg import TaskOutcome

    system.serve("steady")
    failed = system.robot.create_publisher(TaskOutcome, "task_outcome", 10)
    run = start()
    for _ in range(2):
        moving(system)
        message = TaskOutcome(
            header=system.robot.header(), task=TASKS[0], outcome=TaskOutcome.FAILURE
        )
        failed.publish(message)
    assert not run.end()
    assert run.errors == ["NONE", "NONE"]


def test_without_a_server_it_waits_for_one(system: System, steady, start, judge):
    run = start()
    ended(run)
    system.serve("steady")
    judge()
    assert run.end()
    assert run.errors == ["NO_SERVER", "NONE"]


def test_a_tree_that_is_stopped_leaves_no_goal_behind(system: System, steady, start):
    system.serve("steady")
    run = start()
    moving(system)
    run.cancel()
    assert run.succeeded is False
    assert not run.tree.client.busy
    goal = GoalCaller(system).begin("wave", timeout_s=0.3)
    assert goal.accepted


def test_every_error_code_has_a_branch(system: System, start):
    from fastvla_msgs.action import ExecuteTask
    from fastvla_ros.examples.three_cubes import _GIVE_UP

    run = start()
    names = {node.name for node in run.tree.root.iterate()} | set(_GIVE_UP)
    codes = {
        name
        for name in dir(ExecuteTask.Result)
        if name.isupper() and not name.startswith(("OUTCOME_", "SLOT_"))
    }
    assert len(codes) == 11
    assert codes <= names


def test_the_tree_can_be_looked_at(domain_id, capsys):
    assert main(["--show", "--colours", "red", "--ros-args", "-p", "use_sim_time:=false"]) == 0
    shown = capsys.readouterr().out
    assert "put the red cube in the bowl" in shown
    assert "somebody is near" in shown
