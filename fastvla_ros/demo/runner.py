"""Brings the simulated robot up, gives it goals, and writes down what happened."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvla_core.errors import FastVLAError, RosError
from fastvla_core.robot.contract_file import load_contract
from fastvla_ros.bringup_description import BringupOptions
from fastvla_ros.bringup_run import Bringup, running
from fastvla_ros.demo.domain import keep_to_this_machine, reserve_domain
from fastvla_ros.nodes.progress import ProgressLine

if TYPE_CHECKING:
    from fastvla_ros.nodes.task_client import GoalReport, Progress

VIDEO_RATE_HZ = 10
_START_TIMEOUT_S = 60.0
_RESET_TIMEOUT_S = 5.0
_POLL_S = 0.02
# People want to see the scene before the robot moves, and the outcome after.
_LOOK_BEFORE_S, _LOOK_AFTER_S = 0.6, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What to show; `seed` is the scene of the first goal, each further goal takes the next."""

    goals: tuple[str, ...]
    seed: int
    out: Path
    goal_timeout_s: float
    bringup: BringupOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """How the goals ended, how long everything took [s], and what was written."""

    goals: tuple[GoalReport, ...]
    startup_s: float
    total_s: float
    video: Path
    plot: Path

    @property
    def success(self) -> bool:
        """Whether every goal was done."""
        return bool(self.goals) and all(goal.outcome == "success" for goal in self.goals)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "success": self.success,
            "goals": [goal.to_dict() for goal in self.goals],
            "startup_s": round(self.startup_s, 3),
            "total_s": round(self.total_s, 3),
            "video": str(self.video),
            "plot": str(self.plot),
        }


def run_demo(options: DemoOptions, *, say: Callable[[str], None]) -> DemoReport:
    """Run every goal, each in its own scene.

    Args:
        say: Prints a line for the user.

    Raises:
        FastVLAError: the output folder, the checkpoint or a node is not usable.
    """
    started_s = time.monotonic()
    _prepare_folder(options.out)
    with reserve_domain() as domain:
        keep_to_this_machine(domain)
        say(
            f"starting the simulated robot, the policy server ({options.bringup.checkpoint}, "
            f"{options.bringup.quantization}) and the command guard; ROS domain {domain}"
        )
        with running(options.bringup) as bringup:
            stage = _Stage(bringup, options)
            try:
                stage.wait_until_ready()
                startup_s = time.monotonic() - started_s
                say(f"ready after {startup_s:.1f} s")
                reports = stage.perform(say)
            finally:
                stage.close()
        say("drawing the plot")
        from fastvla_ros.demo.plot import plot_history

        plot_history(stage.recorder.history, stage.plot)
    return DemoReport(
        goals=tuple(reports),
        startup_s=startup_s,
        total_s=time.monotonic() - started_s,
        video=stage.video.path,
        plot=stage.plot,
    )


class _Stage:
    """The demo's own node, with a client, a recorder and a camera team."""

    def __init__(self, bringup: Bringup, options: DemoOptions) -> None:
        from rclpy.node import Node

        from fastvla_msgs.srv import ResetScene
        from fastvla_ros.demo import frames
        from fastvla_ros.demo.recorder import DemoRecorder
        from fastvla_ros.demo.video import VideoWriter
        from fastvla_ros.nodes.task_client import TaskClient

        self._bringup, self._options = bringup, options
        clock = f"use_sim_time:={str(options.bringup.use_sim_time).lower()}"
        node = bringup.process.add(
            Node("demo", cli_args=["--ros-args", "-p", clock], use_global_arguments=False)
        )
        self._client = TaskClient(node)
        self._reset_type = ResetScene
        self._reset = node.create_client(ResetScene, "sim_robot/reset")
        self.plot = options.out / "demo.png"
        self.video = VideoWriter(
            options.out / "demo.mp4",
            width=frames.WIDTH,
            height=frames.HEIGHT,
            rate_hz=VIDEO_RATE_HZ,
        )
        self._node, self._contract = node, load_contract(options.bringup.contract)
        self.recorder = DemoRecorder(node, self._contract, video=self.video)

    def close(self) -> None:
        """Finish the video and leave the graph."""
        self._client.destroy()
        self.video.close()

    def wait_until_ready(self) -> None:
        """Wait until goals can be sent and scenes be reset.

        Raises:
            RosError: a node does not come up.
        """
        guarded = self._contract.outputs.topic
        for name, is_ready in (
            ("policy_server", self._client.is_ready),
            ("sim_robot", self._reset.service_is_ready),
            ("command_guard", lambda: self._node.count_publishers(guarded) > 0),
        ):
            deadline_s = time.monotonic() + _START_TIMEOUT_S
            while not is_ready():
                self._bringup.check()
                if time.monotonic() > deadline_s:
                    raise RosError(f"node '{name}' did not come up in {_START_TIMEOUT_S:g} s")
                time.sleep(_POLL_S)

    def perform(self, say: Callable[[str], None]) -> list[GoalReport]:
        """Run the goals one after the other; stops after one that was cancelled."""
        reports: list[GoalReport] = []
        goals = self._options.goals
        for number, task in enumerate(goals, 1):
            self._bringup.check()
            self._set_scene(self._options.seed + number - 1)
            title = f"{number}/{len(goals)}  {task}"
            self.recorder.begin(title)
            time.sleep(_LOOK_BEFORE_S)
            report = self._pursue(task, title)
            reports.append(report)
            say(f"{title}: {report.outcome} after {report.elapsed_s:.1f} s")
            if report.status == "CANCELED":
                break
            time.sleep(_LOOK_AFTER_S)
        return reports

    def _pursue(self, task: str, title: str) -> GoalReport:
        line = ProgressLine(prefix=f"{title}  ")

        def show(progress: Progress) -> None:
            line.show(progress)
            self.recorder.progress(progress)

        begin_s = self.recorder.now_s()
        report = self._client.execute(
            task,
            timeout_s=self._options.goal_timeout_s,
            on_progress=show,
            watch=self._bringup.check,
        )
        line.end()
        self.recorder.end(report, begin_s=begin_s)
        return report

    def _set_scene(self, seed: int) -> None:
        future = self._reset.call_async(self._reset_type.Request(seed=seed))
        done = threading.Event()
        future.add_done_callback(lambda _future: done.set())
        if not done.wait(_RESET_TIMEOUT_S):
            raise RosError("the simulated robot does not answer", mend="look at its log")
        response = future.result()
        if not response.success:
            raise RosError(f"the scene of seed {seed} was not set up: {response.message}")


def check_goals(goals: Sequence[str]) -> None:
    """See that the simulator can judge every goal.

    Raises:
        FastVLAError: a goal is empty, or there is no success test for it.
    """
    from fastvla_core.sim import parse_instruction

    for goal in goals:
        if not goal.strip():
            raise FastVLAError("a goal is empty", mend="say what to do: 'pick up the red cube'")
        if parse_instruction(goal) is None:
            raise FastVLAError(
                f"the simulator has no success test for the goal '{goal}'",
                mend="it knows reach, pick up, put in the bowl, stack and push aside, for the "
                "red, green and blue cube",
            )


def _prepare_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FastVLAError(
            f"the output folder {folder} cannot be made: {error.strerror}",
            mend="choose another one with --out",
        ) from error
