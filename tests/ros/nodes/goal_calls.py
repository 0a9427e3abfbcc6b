"""Goals and services of a policy server, called from the robot's node of a `System`."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any

import numpy as np

from fastvla_core.types import ActionChunk, Observation
from tests.ros.nodes.robot_rig import CONTRACT, TASK, System, wait_until


class SteadyPolicy:
    """Targets that move every joint evenly, after a latency; keeps what it saw.

    Attributes:
        error: Raised instead of an answer.
        go_on: Cleared, an inference hangs.
    """

    device = "cpu"

    def __init__(self, *, latency_s: float = 0.0, step: float = 0.005) -> None:
        self.latency_s, self.step = latency_s, step
        self.error: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self.observations: list[Observation] = []

    def reset(self, seed: int = 0) -> None:
        self.seed = seed

    def infer(self, observation: Observation, *_: Any, **__: Any) -> ActionChunk:
        self.observations.append(observation)
        time.sleep(self.latency_s)
        assert self.go_on.wait(20)
        if self.error is not None:
            raise self.error
        steps = np.arange(1, 9)[:, None] * np.full(7, self.step)
        return ActionChunk(
            stamp_ns=observation.stamp_ns,
            chunk_id=len(self.observations),
            names=CONTRACT.action_names,
            dt_s=0.1,
            positions=observation.state.astype(np.float64) + steps,
        )


class GoalCaller:
    """A bare action client, for what `TaskClient` does not do: many goals, wrong values."""

    def __init__(self, system: System) -> None:
        from rclpy.action import ActionClient

        from fastvla_msgs.action import ExecuteTask

        self.kind = ExecuteTask
        self.client = ActionClient(system.robot, ExecuteTask, "policy_server/execute_task")
        assert self.client.wait_for_server(timeout_sec=10.0)

    def send(self, task: str = TASK, **fields: Any) -> Any:
        """Send a goal; the future ends with its handle."""
        return self.client.send_goal_async(self.kind.Goal(task=task, **fields))

    def begin(self, task: str = TASK, **fields: Any) -> Any:
        """Send a goal and wait for the answer: its handle."""
        return done(self.send(task, **fields), what="the answer to a goal")


def done(future: Any, *, timeout_s: float = 20.0, what: str = "an answer") -> Any:
    """The result of a future that another thread completes."""
    wait_until(future.done, timeout_s=timeout_s, what=what)
    return future.result()


class Goal:
    """A goal under way in a thread of its own, and what is known of it."""

    def __init__(self, system: System, task: str = TASK, *, timeout_s: float = 20.0) -> None:
        self.states: list[str] = []
        self.progress: list = []
        self.report: Future = Future()
        self._thread = threading.Thread(target=self._run, args=(system, task, timeout_s))
        self._thread.start()

    def _run(self, system: System, task: str, timeout_s: float) -> None:
        try:
            report = system.client.execute(task, timeout_s=timeout_s, on_progress=self._note)
            self.report.set_result(report)
        except BaseException as error:
            self.report.set_exception(error)

    def _note(self, progress) -> None:
        self.states.append(progress.state)
        self.progress.append(progress)

    def wait(self, timeout_s: float = 30.0):
        report = self.report.result(timeout_s)
        self._thread.join()
        return report


def executing(system: System, *, commands: int = 3, **options) -> Goal:
    """A goal that has sent a few commands."""
    goal = Goal(system, **options)
    before = len(system.robot.commands)
    wait_until(lambda: len(system.robot.commands) >= before + commands, what="commands")
    return goal


def call(system: System, name: str, *, kind=None, request=None):
    """Call a service, `std_srvs/Trigger` by default."""
    from std_srvs.srv import Trigger

    kind = kind or Trigger
    client = system.robot.create_client(kind, name)
    assert client.wait_for_service(timeout_sec=10.0)
    response = done(client.call_async(request or kind.Request()), what=name)
    system.robot.destroy_client(client)
    return response


def change_state(system: System, label: str) -> bool:
    """Ask for a transition of the server's life cycle; whether it was made."""
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    request = ChangeState.Request()
    request.transition.id = getattr(Transition, f"TRANSITION_{label.upper()}")
    return bool(
        call(system, "policy_server/change_state", kind=ChangeState, request=request).success
    )
