"""Listens to the robot during a demo: frames for the video, curves for the plot."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from fastvla_core.robot.contract import RobotContract
from fastvla_ros.bridge.classes import message_class
from fastvla_ros.bridge.images import read_camera
from fastvla_ros.bridge.joints import joint_state_to_state, stamp_ns
from fastvla_ros.demo.frames import Caption, compose
from fastvla_ros.demo.history import GoalSpan, History
from fastvla_ros.demo.video import VideoWriter
from fastvla_ros.nodes.progress import describe
from fastvla_ros.nodes.task_client import GoalReport, Progress

SCENE = "scene"
# The plot cannot show more, and a hundred messages a second cost what the policy needs.
_JOINT_PERIOD_S = 0.03


class DemoRecorder:
    """Collects what `demo.mp4` and `demo.png` show; every colour camera is watched.

    Args:
        video: Gets one frame for every picture of the scene camera.
    """

    def __init__(self, node: Node, contract: RobotContract, *, video: VideoWriter) -> None:
        self.history = History(names=contract.action_names)
        self._contract = contract
        self._video = video
        self._clock = node.get_clock()
        self._start_ns = self._clock.now().nanoseconds
        self._caption = Caption(title="getting ready")
        self._images: dict[str, NDArray[np.uint8]] = {}
        self._last_inference_s = 0.0
        group = MutuallyExclusiveCallbackGroup()
        for camera in contract.cameras:
            if camera.kind == "depth":
                continue
            node.create_subscription(
                message_class(camera.message_type),
                camera.topic,
                lambda message, name=camera.name: self._on_image(name, message),
                qos_profile_sensor_data,
                callback_group=group,
            )
        node.create_subscription(
            JointState, contract.joint_states.topic, self._on_joints, qos_profile_sensor_data,
            callback_group=group,
        )  # fmt: skip
        node.create_subscription(
            JointTrajectory, contract.outputs.command, self._on_command, 10, callback_group=group
        )

    def now_s(self) -> float:
        """Seconds since the recording began."""
        return (self._clock.now().nanoseconds - self._start_ns) * 1e-9

    def begin(self, title: str) -> None:
        """A goal starts: its title stands in the video until the next one."""
        self._caption = Caption(title=title)

    def progress(self, progress: Progress) -> None:
        """Write the state of the running goal into the video."""
        self._caption = Caption(title=self._caption.title, state=_compact(describe(progress)))
        if progress.inference_s > 0 and progress.inference_s != self._last_inference_s:
            self._last_inference_s = progress.inference_s
            self.history.inference.add(self.now_s(), np.array([progress.inference_s]))

    def end(self, report: GoalReport, *, begin_s: float) -> None:
        """A goal is over: its outcome stands in the video until the next one."""
        caption = self._caption
        self._caption = Caption(title=caption.title, state=caption.state, outcome=report.outcome)
        span = GoalSpan(
            begin_s=begin_s, end_s=self.now_s(), task=report.task, outcome=report.outcome
        )
        self.history.goals.append(span)

    def _on_image(self, camera: str, message: Any) -> None:
        image = read_camera(self._contract.camera(camera), message)
        self._images[camera] = image
        if camera == SCENE:
            images, caption = dict(self._images), self._caption
            time_s = (stamp_ns(message.header.stamp) - self._start_ns) * 1e-9
            self._video.add(max(time_s, 0.0), lambda: compose(images, caption))

    def _on_joints(self, message: Any) -> None:
        time_s = (stamp_ns(message.header.stamp) - self._start_ns) * 1e-9
        times_s = self.history.measured.times_s
        if not times_s or time_s - times_s[-1] >= _JOINT_PERIOD_S:
            state = joint_state_to_state(message, contract=self._contract)
            self.history.measured.add(time_s, state.astype(np.float64))

    def _on_command(self, message: Any) -> None:
        if message.points:
            row = np.full(len(self.history.names), np.nan)
            for name, position in zip(message.joint_names, message.points[-1].positions):
                if name in self.history.names:
                    row[self.history.names.index(name)] = position
            self.history.commanded.add(self.now_s(), row)


def _compact(text: str) -> str:
    # Columns that line up on a terminal only leave holes in a picture.
    text = re.sub(r"(chunk|inference|observation) +", r"\1 ", text.strip())
    return "   ".join(re.split(r"\s{2,}", text))
