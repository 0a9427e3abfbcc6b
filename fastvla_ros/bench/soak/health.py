"""Hears the nodes say on `/diagnostics` that they are alive."""

from __future__ import annotations

import threading
import time
from typing import Any

from fastvla_ros.bench.soak.cell import Cell
from fastvla_ros.bench.soak.goals import wait_for

_SERVER = "policy_server"


class Health:
    """When each node spoke last, and whether the policy server would take a goal."""

    def __init__(self, node: Any) -> None:
        from diagnostic_msgs.msg import DiagnosticArray

        self._lock = threading.Lock()
        self._heard_s: dict[str, float] = {}
        self._stopped = False
        node.create_subscription(DiagnosticArray, "/diagnostics", self._take, 50)

    def wait(self, cell: Cell, *, since_s: float, timeout_s: float) -> None:
        """Until every node has spoken since then, and since it was started.

        Raises:
            RosError: one has not.
        """
        for name, node in cell.nodes.items():
            after_s = max(since_s, node.started_s)
            wait_for(
                lambda name=name, after_s=after_s: self._has_spoken(name, after_s),
                timeout_s=timeout_s,
                what=f"a sign of life of {name}",
            )
        wait_for(self._serves, timeout_s=timeout_s, what="the server's stop to be released")

    def _has_spoken(self, name: str, after_s: float) -> bool:
        with self._lock:
            return self._heard_s.get(name, 0.0) > after_s

    def _serves(self) -> bool:
        with self._lock:
            return not self._stopped

    def _take(self, message: Any) -> None:
        for status in message.status:
            owner, _, about = status.name.partition(": ")
            with self._lock:
                self._heard_s[owner] = time.monotonic()
                if owner == _SERVER and about == "serving":
                    self._stopped = status.message.startswith("stopped")
