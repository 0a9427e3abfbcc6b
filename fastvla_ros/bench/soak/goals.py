"""The bench's own node in the graph: sends goals, sets scenes, watches the commands."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fastvla_core.errors import RosError
from fastvla_core.robot.contract_file import load_contract
from fastvla_ros.bench.soak.watch import CommandWatch
from fastvla_ros.bringup_spin import SharedProcess

CONTRACT = "tabletop"
_ANSWER_S = 20.0
_POLL_S = 0.01


class Operator:
    """Somebody at the robot cell.

    Attributes:
        node: In the graph.
        commands: What the policy server sends.
        outputs: What the guard lets through.
    """

    def __init__(self, process: SharedProcess) -> None:
        from rclpy.node import Node

        from fastvla_msgs.srv import ResetScene
        from fastvla_ros.nodes.task_client import TaskClient

        self.contract = load_contract(CONTRACT)
        self.node = process.add(Node("operator", use_global_arguments=False))
        self.client = TaskClient(self.node)
        self._reset_type = ResetScene
        self._reset = self.node.create_client(ResetScene, "sim_robot/reset")
        self.commands = CommandWatch(self.node, self.contract.outputs.command)
        self.outputs = CommandWatch(self.node, self.contract.outputs.topic)

    def wait_until_ready(
        self, *, timeout_s: float, watch: Callable[[], None] = lambda: None
    ) -> None:
        """Until server, guard and robot are there.

        Raises:
            RosError: one does not come up.
        """
        for name, is_ready in (
            ("policy_server", self.client.is_ready),
            ("sim_robot", self._reset.service_is_ready),
            (
                "command_guard",
                lambda: self.node.count_publishers(self.contract.outputs.topic) > 0,
            ),
        ):
            wait_for(is_ready, timeout_s=timeout_s, what=f"node '{name}'", watch=watch)

    def set_scene(self, seed: int) -> None:
        """Put robot and cubes where the seed says.

        Raises:
            RosError: the simulated robot does not answer, or cannot.
        """
        future = self._reset.call_async(self._reset_type.Request(seed=seed))
        wait_for(future.done, timeout_s=_ANSWER_S, what="the answer of sim_robot/reset")
        answer = future.result()
        if not answer.success:
            raise RosError(f"the scene of seed {seed} could not be set up: {answer.message}")

    def close(self) -> None:
        """Send no goals any more."""
        self.client.destroy()


def wait_for(
    condition: Callable[[], Any],
    *,
    timeout_s: float,
    what: str,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Wait for something that other threads do.

    Args:
        watch: Called meanwhile; what it raises ends the waiting.

    Raises:
        RosError: it did not happen within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        watch()
        if time.monotonic() > deadline:
            raise RosError(f"waited {timeout_s:g} s for {what}")
        time.sleep(_POLL_S)
