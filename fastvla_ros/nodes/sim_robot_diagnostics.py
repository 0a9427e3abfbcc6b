"""What the simulated robot tells on `/diagnostics`, once a second."""

from __future__ import annotations

import time
from collections.abc import Callable

from fastvla_ros.diagnostics.status import Status
from fastvla_ros.nodes.sim_robot_loop import SimLoop

# Below it, a policy sees another robot than the one it was trained on.
_SLOW = 0.95


class SimDiagnostics:
    """Whether the simulation keeps up with the clock that it follows."""

    def __init__(self, loop: SimLoop, *, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._loop, self._now_ns = loop, now_ns
        self._before = now_ns(), loop.lost_ns

    def statuses(self) -> list[Status]:
        """One status: the real-time factor since the last one."""
        (then_ns, lost_then_ns), self._before = self._before, (self._now_ns(), self._loop.lost_ns)
        passed_ns, lost_ns = self._before[0] - then_ns, self._before[1] - lost_then_ns
        factor = max(0.0, 1 - lost_ns / max(passed_ns, 1))
        is_slow = factor < _SLOW
        message = f"{factor * 100:.0f} % of real time"
        if is_slow:
            message += ": the machine is too slow; use_sim_time:=true slows every node alike"
        return [
            Status(
                name="simulation",
                level="WARN" if is_slow else "OK",
                message=message,
                values={"real_time_factor": factor, "lost_s": self._loop.lost_ns * 1e-9},
            )
        ]
