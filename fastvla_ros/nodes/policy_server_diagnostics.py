"""What the policy server tells on `/diagnostics`, once a second while it is active."""

from __future__ import annotations

from dataclasses import dataclass

from fastvla_core.robot.align import StaleStreamError, required_streams
from fastvla_core.robot.buffers import JOINT_STATES
from fastvla_ros.bridge.streams import StreamBridge
from fastvla_ros.diagnostics.goals import GoalTotals, PathHistory
from fastvla_ros.diagnostics.memory import memory_status
from fastvla_ros.diagnostics.status import Level, Status

# As many late ticks in one goal are no accident.
_LATE_SHARE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """What the server knows of itself.

    Attributes:
        task: The running goal's instruction; "" when none runs.
        stop: Why nothing may move; "" when it may.
        rejection: Why the last goal was rejected, or "".
    """

    task: str
    stop: str
    rejection: str
    totals: GoalTotals
    paths: PathHistory


def server_statuses(state: ServerState, *, bridge: StreamBridge, now_ns: int) -> list[Status]:
    """Serving, each stream, latencies, memory."""
    broken = _broken_stream(bridge, now_ns=now_ns)
    streams = (*(camera.name for camera in bridge.contract.observed_cameras), JOINT_STATES)
    return [
        _serving(state, bridge=bridge, broken=broken),
        *(_stream(bridge, stream, broken=broken, now_ns=now_ns) for stream in streams),
        _latency(state),
        memory_status(),
    ]


def _broken_stream(bridge: StreamBridge, *, now_ns: int) -> StaleStreamError | None:
    try:
        bridge.check(now_ns=now_ns)
    except StaleStreamError as error:
        return error
    return None


def _serving(
    state: ServerState, *, bridge: StreamBridge, broken: StaleStreamError | None
) -> Status:
    level: Level = "OK"
    message = f"runs '{state.task}'" if state.task else "ready for a goal"
    if state.stop:
        level, message = "ERROR", f"stopped: {state.stop}; ~/reset_stop releases it"
    elif broken is not None:
        level, message = "WARN", broken.message
    stamps = [bridge.buffers.newest_ns(c.name) for c in bridge.contract.observed_cameras]
    known = [stamp for stamp in stamps if stamp is not None]
    return Status(
        name="serving",
        level=level,
        message=message,
        values={
            **state.totals.values(),
            "last_rejection": state.rejection,
            "camera_skew_s": (max(known) - min(known)) * 1e-9 if known else 0.0,
            "clock_jumps": bridge.buffers.clock_jumps,
        },
    )


def _stream(
    bridge: StreamBridge, stream: str, *, broken: StaleStreamError | None, now_ns: int
) -> Status:
    contract = bridge.contract
    spec = contract.joint_states if stream == JOINT_STATES else contract.camera(stream)
    newest_ns = bridge.buffers.newest_ns(stream)
    rate_hz, problem = bridge.rate_hz(stream), bridge.problem(stream)
    age_s = None if newest_ns is None else (now_ns - newest_ns) * 1e-9
    needed = stream in required_streams(contract)
    level: Level = "OK"
    message = f"{rate_hz:.1f} Hz"
    if problem is not None:
        level, message = "ERROR" if needed else "WARN", f"unusable: {problem.message}"
    elif age_s is None:
        level, message = "STALE", f"nothing has come on '{spec.topic}': is its driver running?"
    elif broken is not None and broken.stream == stream:
        level, message = "ERROR", broken.message
    elif age_s > spec.max_age_s:
        level, message = "WARN", f"{age_s:.2f} s old; it may be {spec.max_age_s:g} s old"
    return Status(
        name=f"stream {stream}",
        level=level,
        message=message,
        values={
            "topic": spec.topic,
            "rate_hz": rate_hz,
            "age_s": "never" if age_s is None else age_s,
            "max_age_s": spec.max_age_s,
            "dropped": bridge.dropped[stream],
        },
    )


def _latency(state: ServerState) -> Status:
    inference, last = state.paths.inference, state.totals.last
    level: Level = "OK"
    message = "nothing was inferred yet"
    if inference.count:
        message = (
            f"inference {inference.percentile_s(50) * 1e3:.0f} ms "
            f"(p99 {inference.percentile_s(99) * 1e3:.0f} ms), image to command "
            f"{state.paths.path.percentile_s(50) * 1e3:.0f} ms"
        )
    if last is not None and last.deadline_misses > max(1.0, _LATE_SHARE * last.commands_sent):
        level = "WARN"
        message = f"{last.deadline_misses} control ticks of the last goal were late: the machine "
        message += f"is too busy; {inference.percentile_s(50) * 1e3:.0f} ms per inference"
    return Status(name="latency", level=level, message=message, values=state.paths.values())
