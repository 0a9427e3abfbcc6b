"""What a goal session takes and gives; the numbers are those of `fastvla_msgs/ExecuteTask`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from fastvla_core.runtime.merging import ChunkMerge
from fastvla_core.types import ActionChunk, JointTrajectoryCommand


class GoalCode(IntEnum):
    """How a goal ended: `ExecuteTask.Result.error_code`."""

    NONE = 0
    CANCELED = 1
    TIMEOUT = 2
    PREEMPTED = 3
    DEACTIVATED = 4
    STALE_SENSOR = 5
    SAFETY_STOP = 6
    INVALID_ACTION = 7
    INFERENCE_FAILED = 8
    CONTROLLER_LOST = 9
    UNKNOWN = 65535


# Where several ends are asked for at once, the first of these is reported.
_URGENCY = (
    GoalCode.SAFETY_STOP,
    GoalCode.CANCELED,
    GoalCode.DEACTIVATED,
    GoalCode.PREEMPTED,
    GoalCode.CONTROLLER_LOST,
    GoalCode.UNKNOWN,
    GoalCode.INVALID_ACTION,
    GoalCode.INFERENCE_FAILED,
    GoalCode.NONE,
    GoalCode.STALE_SENSOR,
    GoalCode.TIMEOUT,
)


def most_urgent(codes: Iterable[GoalCode]) -> GoalCode:
    """The end to report of several: a safety stop is never called a timeout."""
    return min(codes, key=_URGENCY.index)


class Outcome(IntEnum):
    """Whether the task was done: `ExecuteTask.Result.outcome`."""

    UNKNOWN = 0
    SUCCESS = 1
    FAILURE = 2


class GoalState(IntEnum):
    """What a goal does: `ExecuteTask.Feedback.state`."""

    WAITING_SENSORS = 0
    INFERRING = 1
    EXECUTING = 2
    HOLDING = 3
    STOPPING = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """Now, on both clocks: `ros_ns` compares with stamps, `steady_ns` measures how long."""

    ros_ns: int
    steady_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalOptions:
    """The limits of one goal; times in s.

    Attributes:
        timeout_s: Deadline of the goal.
        sensor_timeout_s: How long to wait for a stream at the start, and to hold for one later.
        inference_timeout_s: How long one inference may take.
        execute_steps: Action steps from one observation to the next, when inference keeps up.
        chunk_merge: How chunks follow each other; see `merging`.
        speed_scale: In (0, 1].
        dry_run: Infer and preview, send no command.
    """

    timeout_s: float
    sensor_timeout_s: float = 2.0
    inference_timeout_s: float = 10.0
    execute_steps: int = 2
    chunk_merge: ChunkMerge = "auto"
    speed_scale: float = 1.0
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalFeedback:
    """The fields of `ExecuteTask.Feedback`; times in s."""

    state: GoalState
    elapsed_s: float
    chunk_index: int
    queue_depth: int
    inference_s: float
    oldest_age_s: float
    camera_skew_s: float
    blocking_stream: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalEnd:
    """The fields of `ExecuteTask.Result`; times in s."""

    code: GoalCode
    message: str
    outcome: Outcome
    elapsed_s: float
    inferences: int
    commands_sent: int
    commands_limited: int
    deadline_misses: int
    latency_p50_s: float
    latency_p99_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """What one control tick asks for: publish in this order, then finish the goal on `end`."""

    chunk: ActionChunk | None = None
    command: JointTrajectoryCommand | None = None
    feedback: GoalFeedback | None = None
    end: GoalEnd | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PathLatency:
    """One observation's way to the robot, in monotonic ns.

    Attributes:
        arrived_ns: Its last image came in.
        started_ns, finished_ns: Of the inference.
        ticked_ns: The control tick that used it first began.
        published_ns: The command of that tick was out.
    """

    arrived_ns: int
    started_ns: int
    finished_ns: int
    ticked_ns: int
    published_ns: int

    @property
    def overhead_s(self) -> float:
        """Image arrival to command published without the inference, waiting included [s]."""
        inference_ns = self.finished_ns - self.started_ns
        return (self.published_ns - self.arrived_ns - inference_ns) * 1e-9

    @property
    def processing_s(self) -> float:
        """The same without waiting for the next control tick: what our own code takes [s]."""
        before_ns = self.started_ns - self.arrived_ns
        return (before_ns + self.published_ns - self.ticked_ns) * 1e-9
