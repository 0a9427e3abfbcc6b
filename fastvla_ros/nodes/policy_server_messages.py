"""Goal types to and from `fastvla_msgs`."""

from __future__ import annotations

import array
from typing import Any

from fastvla_core.types import ActionChunk
from fastvla_msgs.action import ExecuteTask
from fastvla_msgs.msg import ActionChunk as ActionChunkMessage
from fastvla_ros.bridge.joints import to_time
from fastvla_ros.nodes.goal_types import GoalEnd, GoalFeedback, GoalOptions
from fastvla_ros.nodes.policy_server_parameters import ServerParameters

# What a person says to a robot is short; a longer text is a mistake, and would flood the logs.
_LONGEST_TASK = 1000
_SLOWEST = 0.001
# The guard counts in 64 bits, and a wrong status must not cost a goal its result.
_UINT32_MAX = 2**32 - 1


def to_options(goal: Any, *, parameters: ServerParameters) -> GoalOptions:
    """A goal's own limits, the server's where it gives none (0)."""
    return GoalOptions(
        timeout_s=goal.timeout_s or parameters.default_timeout_s,
        sensor_timeout_s=parameters.sensor_timeout_s,
        inference_timeout_s=parameters.inference_timeout_s,
        execute_steps=parameters.execute_steps,
        chunk_merge=parameters.chunk_merge,
        speed_scale=goal.speed_scale or 1.0,
        dry_run=goal.dry_run,
    )


def refusal(goal: Any, *, parameters: ServerParameters) -> str:
    """Why a goal cannot be accepted, whatever the server does; "" when it can."""
    if not goal.task.strip():
        return "the instruction is empty; say what to do, for example 'pick up the red cube'"
    if len(goal.task) > _LONGEST_TASK:
        return f"the instruction has {len(goal.task)} characters, at most {_LONGEST_TASK} are read"
    if goal.checkpoint_id not in ("", parameters.checkpoint):
        asked = goal.checkpoint_id[:_LONGEST_TASK]
        return f"checkpoint '{asked}' is not loaded, '{parameters.checkpoint}' is"
    if not 0 <= goal.timeout_s <= parameters.max_timeout_s:
        return (
            f"timeout_s is {goal.timeout_s}, expected at most {parameters.max_timeout_s:g} s, "
            "or 0 for the server's default"
        )
    if not (goal.speed_scale == 0 or _SLOWEST <= goal.speed_scale <= 1):
        return f"speed_scale is {goal.speed_scale}, expected {_SLOWEST:g} to 1, or 0 for full speed"
    return ""


def to_feedback(feedback: GoalFeedback) -> Any:
    """`ExecuteTask.Feedback`; the policy does not know its progress."""
    return ExecuteTask.Feedback(
        state=int(feedback.state),
        elapsed_s=feedback.elapsed_s,
        progress=float("nan"),
        chunk_index=feedback.chunk_index,
        queue_depth=feedback.queue_depth,
        inference_s=feedback.inference_s,
        oldest_observation_age_s=feedback.oldest_age_s,
        camera_skew_s=feedback.camera_skew_s,
        blocking_stream=feedback.blocking_stream,
    )


def to_result(end: GoalEnd) -> Any:
    """`ExecuteTask.Result`."""
    return ExecuteTask.Result(
        error_code=int(end.code),
        error_msg=end.message,
        outcome=int(end.outcome),
        elapsed_s=end.elapsed_s,
        inferences=end.inferences,
        commands_sent=end.commands_sent,
        commands_limited=min(end.commands_limited, _UINT32_MAX),
        deadline_misses=end.deadline_misses,
        latency_p50_s=end.latency_p50_s,
        latency_p99_s=end.latency_p99_s,
    )


def to_preview(chunk: ActionChunk, *, frame_id: str) -> ActionChunkMessage:
    """`fastvla_msgs/ActionChunk`."""
    message = ActionChunkMessage()
    message.header.stamp = to_time(chunk.stamp_ns)
    message.header.frame_id = frame_id
    message.chunk_id = chunk.chunk_id
    message.joint_names = list(chunk.names)
    message.horizon = len(chunk.positions)
    message.dt_s = chunk.dt_s
    message.positions = array.array("d", chunk.positions.ravel().tolist())
    return message
