"""One goal from acceptance to result: the state machine of the policy server, without ROS."""

from __future__ import annotations

import threading
from collections import deque

from fastvla_core.errors import PolicyError, RemoteUnavailableError
from fastvla_core.robot.align import StaleStreamError
from fastvla_core.robot.contract import RobotContract
from fastvla_core.runtime.chunking import ChunkExecutor
from fastvla_core.runtime.engine import InferenceWorker
from fastvla_core.types import ActionChunk, JointTrajectoryCommand
from fastvla_ros.bridge.streams import StreamBridge
from fastvla_ros.nodes.goal_motion import GoalMotion
from fastvla_ros.nodes.goal_record import GoalRecord
from fastvla_ros.nodes.goal_types import (
    GoalCode,
    GoalEnd,
    GoalOptions,
    GoalState,
    Instant,
    Outcome,
    PathLatency,
    Tick,
    most_urgent,
)

_CLOCK_JUMP_NS = 100_000_000


class GoalSession:
    """Senses, infers and commands for one instruction; `tick` at the control rate drives it.

    After a tick with `end` nothing is commanded any more. All methods may be called from any
    thread.

    Args:
        task: The instruction.
        worker: The policy's; shared by all goals, one at a time.
        seed: Fixes the policy's sampling.
        path: Takes the way of each chunk's observation to the robot, for the bench.
    """

    def __init__(
        self,
        task: str,
        *,
        contract: RobotContract,
        bridge: StreamBridge,
        worker: InferenceWorker,
        options: GoalOptions,
        now: Instant,
        seed: int = 0,
        path: deque[PathLatency] | None = None,
    ) -> None:
        self.task, self.options, self.started = task, options, now
        self._bridge, self._worker = bridge, worker
        self._executor = ChunkExecutor(
            contract,
            merge=options.chunk_merge,
            conditionings=worker.conditionings,
            execute_steps=options.execute_steps,
            speed_scale=options.speed_scale,
        )
        self._motion = GoalMotion(contract, buffers=bridge.buffers)
        path = deque[PathLatency](maxlen=1) if path is None else path
        self._record = GoalRecord(now=now, period_ns=self._motion.period_ns, path=path)
        self._lock = threading.RLock()
        self._requests: dict[GoalCode, tuple[str, Outcome]] = {}
        self._end: GoalEnd | None = None
        self._state = GoalState.WAITING_SENSORS
        self._blocked: StaleStreamError | None = None
        self._blocked_since_ns: int | None = None
        self._jumps, self._last_ros_ns = bridge.buffers.clock_jumps, now.ros_ns
        self._submitted_ns: int | None = None
        self._waiting_ns: int | None = None
        self._missing_ns: int | None = None
        self._hold_due = False
        self._start_fresh()
        worker.restart(seed)

    def request_end(
        self, code: GoalCode, message: str, *, outcome: Outcome = Outcome.UNKNOWN
    ) -> bool:
        """End at the next tick; False when the goal has already ended."""
        with self._lock:
            if self._end is not None:
                return False
            self._requests.setdefault(code, (message, outcome))
            return True

    def fail(self, now: Instant, message: str) -> GoalEnd:
        """End at once without a tick, after a defect; nothing is commanded any more."""
        with self._lock:
            self._worker.discard()
            if self._end is None:
                self._end = self._record.end(
                    now,
                    code=GoalCode.UNKNOWN,
                    message=message,
                    outcome=Outcome.UNKNOWN,
                    last_command=False,
                )
            return self._end

    def on_limited(self, count: int) -> None:
        """Take how many commands of this goal the guard has limited so far."""
        self._record.limited = count

    def on_data(self, now: Instant) -> None:
        """Start an inference at once when new data made it due, rather than at the next tick."""
        with self._lock:
            if self._end is not None or self._requests or self._blocked is not None:
                return
            try:
                self._infer_if_due(now)
            except StaleStreamError:
                return  # the next tick meets it again and acts on it

    def on_published(self, *, steady_ns: int) -> None:
        """Take that the command of the last tick went out."""
        self._record.on_published(steady_ns=steady_ns)

    def tick(self, now: Instant) -> Tick:
        """Advance by one control period and say what to publish."""
        with self._lock:
            if self._end is not None:
                return Tick()
            self._record.on_tick(now)
            self._watch_clock(now)
            chunk = self._take_result(now)
            self._look(now)
            if self._record.elapsed_s(now) > self.options.timeout_s:
                self.request_end(GoalCode.TIMEOUT, f"not done within {self.options.timeout_s:g} s")
            if self._requests:
                return self._finish(now, chunk)
            return Tick(
                chunk=chunk,
                command=self._command(now),
                feedback=self._record.feedback(
                    now,
                    state=self._state,
                    queue_depth=self._executor.steps_left(now.ros_ns),
                    blocking=self._blocking,
                    news=chunk is not None,
                ),
            )

    @property
    def _blocking(self) -> str:
        if self._blocked is not None:
            return self._blocked.stream
        return "policy" if self._missing_ns is not None else ""

    # -- sensing -------------------------------------------------------------------------------

    def _start_fresh(self) -> None:
        self._bridge.start_fresh(history_s=self._worker.history_s)

    def _watch_clock(self, now: Instant) -> None:
        jumps = self._bridge.buffers.clock_jumps
        if jumps != self._jumps or now.ros_ns < self._last_ros_ns - _CLOCK_JUMP_NS:
            self._start_fresh()
            self._hold()
        self._jumps, self._last_ros_ns = jumps, now.ros_ns

    def _look(self, now: Instant) -> None:
        try:
            self._bridge.check(now_ns=now.ros_ns)
            self._infer_if_due(now)
        except StaleStreamError as error:
            self._blocked = error
        else:
            self._blocked = self._blocked_since_ns = None
            return
        if self._blocked_since_ns is None:
            self._blocked_since_ns = now.steady_ns
        self._hold()
        if now.steady_ns - self._blocked_since_ns > self.options.sensor_timeout_s * 1e9:
            self.request_end(GoalCode.STALE_SENSOR, str(self._blocked))

    def _hold(self) -> None:
        self._worker.discard()
        self._submitted_ns = None
        self._executor.reset()
        self._hold_due |= self._state is GoalState.EXECUTING
        if self._state is not GoalState.WAITING_SENSORS:
            self._state = GoalState.HOLDING

    # -- inferring -----------------------------------------------------------------------------

    def _infer_if_due(self, now: Instant) -> None:
        if self._submitted_ns is not None:
            return
        if self._worker.busy:  # with an inference that was discarded, maybe an earlier goal's
            self._waiting_ns = self._waiting_ns or now.steady_ns
            return
        self._waiting_ns = None
        due_ns = self._executor.due_ns
        if due_ns is not None and not self._bridge.reached(due_ns):
            return
        observation = self._bridge.observe(self.task, history_s=self._worker.history_s)
        prefix = self._executor.prefix(observation.stamp_ns)
        if self._worker.submit(observation, prefix=prefix):
            self._record.observation = observation
            self._submitted_ns = now.steady_ns
            if self._state is GoalState.WAITING_SENSORS:
                self._state = GoalState.INFERRING

    def _take_result(self, now: Instant) -> ActionChunk | None:
        result = self._worker.poll()
        if result is None:
            self._watch_inference(now)
            return None
        submitted_ns, self._submitted_ns = self._submitted_ns, None
        if isinstance(result.error, RemoteUnavailableError):
            self._miss_policy(result.error, now, since_ns=submitted_ns)
            return None
        self._missing_ns = None
        arrived_ns = self._bridge.arrival_ns(result.observation)
        self._record.on_inference(result, arrived_ns=arrived_ns)
        try:
            if result.error is not None:
                raise result.error
            assert result.chunk is not None
            self._play(result.chunk, now)
        except PolicyError as error:
            self.request_end(GoalCode.INVALID_ACTION, str(error))
            return None
        # Any other error of the policy ends the goal in words too, never the control loop.
        except Exception as error:
            self.request_end(GoalCode.INFERENCE_FAILED, f"{type(error).__name__}: {error}")
            return None
        return result.chunk

    def _miss_policy(
        self, error: RemoteUnavailableError, now: Instant, *, since_ns: int | None
    ) -> None:
        # The plan plays on to its end, then the robot holds; each new try has a new observation.
        self._missing_ns = self._missing_ns or since_ns or now.steady_ns
        if self._executor.exhausted(now.ros_ns):
            self._hold()
        if now.steady_ns - self._missing_ns > self.options.inference_timeout_s * 1e9:
            self.request_end(GoalCode.INFERENCE_FAILED, str(error))

    def _watch_inference(self, now: Instant) -> None:
        since_ns = self._submitted_ns or self._waiting_ns
        if since_ns is None:
            return
        waited_s = (now.steady_ns - since_ns) * 1e-9
        if waited_s > self.options.inference_timeout_s:
            self.request_end(
                GoalCode.INFERENCE_FAILED, f"the policy has not answered for {waited_s:.1f} s"
            )

    def _play(self, chunk: ActionChunk, now: Instant) -> None:
        if self._state is not GoalState.EXECUTING:
            # Nothing moved since before the observation, so no row of the chunk has been missed.
            self._executor.reset(self._motion.rest(), now_ns=chunk.stamp_ns)
        self._executor.submit(chunk, now_ns=now.ros_ns)
        self._state, self._hold_due = GoalState.EXECUTING, False

    # -- commanding and ending -------------------------------------------------------------------

    def _command(self, now: Instant) -> JointTrajectoryCommand | None:
        if self.options.dry_run:
            return None
        if not self._hold_due:
            return self._motion.move(self._executor, now_ns=now.ros_ns)
        command = self._motion.hold(now_ns=now.ros_ns)
        self._hold_due = command is None
        return command

    def _finish(self, now: Instant, chunk: ActionChunk | None) -> Tick:
        code = most_urgent(self._requests)
        message, outcome = self._requests[code]
        moving = self._hold_due or self._state is GoalState.EXECUTING
        command = self._motion.hold(now_ns=now.ros_ns) if moving else None
        self._worker.discard()
        self._executor.reset()
        self._state = GoalState.STOPPING
        self._end = self._record.end(
            now, code=code, message=message, outcome=outcome, last_command=command is not None
        )
        feedback = self._record.feedback(
            now, state=self._state, queue_depth=0, blocking=self._blocking, news=True
        )
        return Tick(chunk=chunk, command=command, feedback=feedback, end=self._end)
