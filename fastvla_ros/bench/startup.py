"""From the start of a process to its first message from a node that runs already."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastvla_ros.bench.processes import running
from fastvla_ros.bench.runtimes import Runtime

_TIMEOUT_S = 60.0
_QOS = {"reliability": "reliable", "depth": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """How often a process is started; the beacon's rate bounds the wait after discovery."""

    starts: int = 5
    beacon_rate_hz: float = 200.0


def measure_starts(beacon: Runtime, newcomer: Runtime, starts: Starts) -> dict[str, float]:
    """Medians [s] of the whole, and of its parts: imports, joining the graph, first message.

    Raises:
        RosError: a process failed, or no message came.
    """
    rows: list[list[int]] = []
    with running(beacon, "beacon", rate_hz=starts.beacon_rate_hz, **_QOS):
        # The first one may wait for the beacon to start, so it is not counted.
        for _ in range(1 + starts.starts):
            with running(newcomer, "newcomer", timeout_s=_TIMEOUT_S, **_QOS) as started:
                report = started.report(timeout_s=2 * _TIMEOUT_S)
            moments = [report["imported_ns"], report["joined_ns"], report["first_ns"]]
            rows.append([started.started_ns, *moments])
    moments_s = np.array(rows[1:]) / 1e9
    total_s = moments_s[:, 3] - moments_s[:, 0]
    imports_s, joining_s, waiting_s = np.median(np.diff(moments_s, axis=1), axis=0)
    return {
        "p50_s": float(np.median(total_s)),
        "max_s": float(total_s.max()),
        "imports_s": imports_s,
        "joining_s": joining_s,
        "first_message_s": waiting_s,
    }
