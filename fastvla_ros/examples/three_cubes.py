"""The tree: three cubes into bowls, one after the other, whatever happens on the way.

    Selector, without memory: what stands above takes over as soon as it can
      Sequence: somebody is near -> hold still
      Sequence, with memory: one cube after the other
        Selector: done already? else
          Sequence: fetch a tray, then
            Recovery: execute the task; where that fails, react to how it ended, and try again

A leaf that another branch takes over from cancels its goal: that is all it takes to stop the robot
when somebody comes near.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from py_trees.behaviour import Behaviour
from py_trees.behaviours import Running
from py_trees.common import Status
from py_trees.composites import Selector
from py_trees.composites import Sequence as InTurn
from py_trees.decorators import FailureIsRunning, Timeout
from rclpy.node import Node

from fastvla_msgs.srv import ResetScene
from fastvla_ros.examples.cell import Cell
from fastvla_ros.nodes.task_client import TaskClient
from fastvla_ros.planner.execute_task import NO_SERVER, ExecuteTask
from fastvla_ros.planner.leaves import Act, CallService, Check, Wait, WaitUntil
from fastvla_ros.planner.recovery import Recovery


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeOptions:
    """How patient the tree is; times in s.

    Attributes:
        goal_timeout_s: Deadline of each goal; 0 uses the server's.
        trays: Fetch a tray before each cube: the simulated robot's next scene.
        seed: Of the first tray.
        patience_s: How long to wait for the guard, for the server, and for other clients.
        backoff_s: First pause before a try that may fail for the same reason; doubles each time.
    """

    goal_timeout_s: float = 30.0
    trays: bool = True
    seed: int = 1
    patience_s: float = 30.0
    backoff_s: float = 0.5


class ThreeCubes:
    """Makes the tree; its leaves share one node, one client and one view of the cell.

    Attributes:
        root: The tree.
        leaves: The tasks' leaves, with their reports.
    """

    def __init__(
        self, node: Node, tasks: Sequence[str], *, options: TreeOptions | None = None
    ) -> None:
        self.cell, self.client = Cell(node), TaskClient(node)
        self.leaves: list[ExecuteTask] = []
        self._node, self._options = node, options or TreeOptions()
        self._seeds = itertools.count(self._options.seed)
        self._done: set[str] = set()
        cubes = [self._cube(task) for task in tasks]
        self.root = Selector(
            "work",
            memory=False,
            children=[self._hold_still(), InTurn("every cube", memory=True, children=cubes)],
        )

    def _hold_still(self) -> Behaviour:
        near = Check("somebody is near", lambda: self.cell.person_near)
        # Without memory: the check is made at every tick, so that work goes on when they leave.
        return InTurn("hold still", memory=False, children=[near, Running("wait")])

    def _cube(self, task: str) -> Behaviour:
        # A sequence that was interrupted begins at its first child again: ask before acting.
        done = Check("done already", lambda: task in self._done)
        leaf = ExecuteTask(task, client=self.client, timeout_s=self._options.goal_timeout_s)
        self.leaves.append(leaf)
        steps = [
            *self._trays(),
            Recovery("until it is done", task=leaf, recovery=self._react(leaf)),
            Act("remember", lambda: self._done.add(task)),
        ]
        work = InTurn("work on it", memory=True, children=steps)
        return Selector(task, memory=True, children=[done, work])

    # -- what to do when a goal has not ended well ----------------------------------------------

    def _react(self, leaf: ExecuteTask) -> Behaviour:
        """SUCCESS says "try again", FAILURE "there is no point".

        The codes that are not here are for people: `_GIVE_UP` says what they should do.
        """
        pause = self._pause(leaf)
        again = [
            # It went wrong, or took too long: once more, from another start.
            _on(leaf, "NONE", times=1, then=self._trays()),
            _on(leaf, "TIMEOUT", times=1, then=self._trays()),
            # A camera may come back; do not hammer the server meanwhile.
            _on(leaf, "STALE_SENSOR", times=3, then=[pause("for the sensor")]),
            # The server is busy, or not active yet.
            _on(leaf, "REJECTED", times=3, then=[pause("for the server")]),
            _on(leaf, "CONTROLLER_LOST", times=1, then=[self._wait_for_guard()]),
            # Someone else has the robot now: their turn first, which is about to begin.
            _on(leaf, "PREEMPTED", times=2, then=[pause("for them"), self._wait_for_turn()]),
            # Someone took the server out of service: it is theirs to put it back.
            _on(leaf, "DEACTIVATED", times=1, then=[self._wait_for_activation()]),
            _on(leaf, NO_SERVER, times=1, then=[self._wait_for_server()]),
        ]
        give_up = Act("call for help", lambda: self._call_for_help(leaf), then=Status.FAILURE)
        # With memory: a reaction that has begun is carried through.
        return Selector("how did it end?", memory=True, children=[*again, give_up])

    def _pause(self, leaf: ExecuteTask) -> Callable[[str], Behaviour]:
        def pause(reason: str) -> Behaviour:
            return Wait(f"pause {reason}", lambda: self._options.backoff_s * 2 ** (_row(leaf) - 1))

        return pause

    def _wait_for_guard(self) -> Behaviour:
        return WaitUntil(
            "the guard is back",
            lambda: self.cell.guard_is_there,
            timeout_s=self._options.patience_s,
        )

    def _wait_for_turn(self) -> Behaviour:
        return WaitUntil(
            "the other goal has ended",
            lambda: not self.cell.running_task,
            timeout_s=self._options.patience_s,
        )

    def _wait_for_server(self) -> Behaviour:
        return WaitUntil(
            "the server is back", self.client.is_ready, timeout_s=self._options.patience_s
        )

    def _wait_for_activation(self) -> Behaviour:
        active = CallService(
            "is it active?",
            self._node,
            GetState,
            "policy_server/get_state",
            request=GetState.Request,
            accepted=lambda r: r.current_state.id == State.PRIMARY_STATE_ACTIVE,
        )
        asking = FailureIsRunning("ask until it is", active)
        return Timeout("the server is active", asking, self._options.patience_s)

    def _trays(self) -> list[Behaviour]:
        """Fetching a tray with three cubes and a bowl; nothing where people bring them."""
        if not self._options.trays:
            return []
        fetch = CallService(
            "fetch a tray",
            self._node,
            ResetScene,
            "sim_robot/reset",
            request=lambda: ResetScene.Request(seed=next(self._seeds)),
            accepted=lambda response: response.success,
        )
        return [fetch]

    def _call_for_help(self, leaf: ExecuteTask) -> None:
        report = leaf.reports[-1]
        advice = _GIVE_UP.get(report.error, "it has been tried often enough")
        self.cell.call_for_help(f"'{leaf.task}': {report.error}: {advice}. {report.message}")


_GIVE_UP = {
    # Whoever stopped the robot knows why; a program must not release the stop.
    "SAFETY_STOP": "the robot was stopped; see that nobody is in danger, then release the stop "
    "with command_guard/reset_stop and policy_server/reset_stop",
    # Somebody wanted this goal to end, and the tree did not.
    "CANCELED": "somebody else canceled the goal",
    # The same policy would do the same again.
    "INVALID_ACTION": "the policy gave commands that must not reach a robot; change the checkpoint",
    "INFERENCE_FAILED": "the policy failed; look at the log of the policy server",
    "UNKNOWN": "a defect of the policy server; look at its log",
}


def _on(leaf: ExecuteTask, code: str, *, times: int, then: Sequence[Behaviour] = ()) -> Behaviour:
    """Where the goal ended with `code`, for at most `times` times in a row, do `then`."""
    ended = Check(code, lambda: leaf.reports[-1].error == code and _row(leaf) <= times)
    return InTurn(f"{code}: try again", memory=True, children=[ended, *then])


def _row(leaf: ExecuteTask) -> int:
    """How many goals in a row ended like the last one."""
    last = leaf.reports[-1].error
    return sum(1 for _ in itertools.takewhile(lambda r: r.error == last, reversed(leaf.reports)))
