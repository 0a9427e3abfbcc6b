"""Sees from outside what is commanded, and what the nodes say of themselves."""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict
from typing import Any

_QUEUE = 100


class CommandWatch:
    """When messages come on a topic of commands; `forget` begins anew."""

    def __init__(self, node: Any, topic: str) -> None:
        from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
        from trajectory_msgs.msg import JointTrajectory

        self._lock = threading.Lock()
        self._times_s: list[float] = []
        self._last: Any = None
        node.create_subscription(
            JointTrajectory, topic, self._take, _QUEUE,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )  # fmt: skip

    def forget(self) -> None:
        """Count from now on."""
        with self._lock:
            self._times_s, self._last = [], None

    def times_s(self) -> list[float]:
        """When each came (monotonic)."""
        with self._lock:
            return list(self._times_s)

    @property
    def count(self) -> int:
        """How many came."""
        with self._lock:
            return len(self._times_s)

    @property
    def at_rest(self) -> bool:
        """Whether the last one was a hold; True where none came."""
        with self._lock:
            return self._last is None or not any(self._last.points[0].velocities)

    def settle(self, *, expected: int, quiet_s: float, timeout_s: float) -> int:
        """How many came: wait for as many as are expected, then a moment for one too many."""
        deadline = time.monotonic() + timeout_s
        while self.count < expected and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(quiet_s)
        return self.count

    def _take(self, message: Any) -> None:
        with self._lock:
            self._times_s.append(time.monotonic())
            self._last = message


class DiagnosticsWatch:
    """Rates of the cameras and the simulation's lost time, from `/diagnostics`."""

    def __init__(self, node: Any) -> None:
        from diagnostic_msgs.msg import DiagnosticArray

        self._lock = threading.Lock()
        self._rates_hz: dict[str, list[float]] = defaultdict(list)
        self._lost_s: list[float] = []
        node.create_subscription(DiagnosticArray, "/diagnostics", self._take, 10)

    def forget(self) -> None:
        """Count from now on; what the simulation lost before is left out."""
        with self._lock:
            self._rates_hz.clear()
            del self._lost_s[:-1]

    def summary(self) -> dict[str, Any]:
        """Median and lowest rate by stream, and time that the simulation let go by [s]."""
        with self._lock:
            rates = {name: list(values) for name, values in self._rates_hz.items()}
            lost_s = self._lost_s[-1] - self._lost_s[0] if self._lost_s else 0.0
        return {
            "rates_hz": {
                name: {"median": round(statistics.median(values), 2), "lowest": min(values)}
                for name, values in sorted(rates.items())
            },
            "simulation_lost_s": round(lost_s, 3),
        }

    def _take(self, message: Any) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            with self._lock:
                if status.name.startswith("policy_server: stream "):
                    stream = status.name.rpartition(" ")[2]
                    self._rates_hz[stream].append(round(float(values["rate_hz"]), 2))
                elif status.name == "sim_robot: simulation":
                    self._lost_s.append(float(values["lost_s"]))
