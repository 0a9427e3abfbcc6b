"""What the policy server tells on `/diagnostics`, once a second."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from fastvla_core.robot.buffers import JOINT_STATES
from fastvla_ros.bridge.streams import StreamBridge
from fastvla_ros.nodes.goal_types import GoalEnd


def stream_values(bridge: StreamBridge, *, now_ns: int) -> dict[str, str]:
    """Rate, age and refused messages of every stream."""
    values = {}
    for stream in (*(c.name for c in bridge.contract.observed_cameras), JOINT_STATES):
        newest_ns = bridge.buffers.newest_ns(stream)
        age = "never" if newest_ns is None else f"{(now_ns - newest_ns) * 1e-9:.3f}"
        values[f"{stream}.rate_hz"] = f"{bridge.rate_hz(stream):.1f}"
        values[f"{stream}.age_s"] = age
        values[f"{stream}.dropped"] = str(bridge.dropped[stream])
    values["clock_jumps"] = str(bridge.buffers.clock_jumps)
    return values


def goal_values(end: GoalEnd | None) -> dict[str, str]:
    """Latency and counters of the last goal."""
    if end is None:
        return {}
    return {
        "last_goal.end": end.code.name,
        "last_goal.outcome": end.outcome.name,
        "latency_p50_s": f"{end.latency_p50_s:.4f}",
        "latency_p99_s": f"{end.latency_p99_s:.4f}",
        "deadline_misses": str(end.deadline_misses),
        "commands_sent": str(end.commands_sent),
        "commands_limited": str(end.commands_limited),
    }


def memory_values() -> dict[str, str]:
    """GPU memory that PyTorch holds [MiB]; nothing without a GPU in use."""
    import torch

    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return {}
    return {"vram_mib": f"{torch.cuda.memory_allocated() / 2**20:.0f}"}


def diagnostics(
    *, stamp: Any, name: str, problem: str, summary: str, values: Mapping[str, str]
) -> DiagnosticArray:
    """One status: WARN with `problem` where there is one, OK with `summary` otherwise."""
    message = DiagnosticArray()
    message.header.stamp = stamp
    level = DiagnosticStatus.WARN if problem else DiagnosticStatus.OK
    message.status = [
        DiagnosticStatus(
            level=level,
            name=name,
            message=problem or summary,
            hardware_id="",
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
    ]
    return message
