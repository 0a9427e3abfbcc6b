"""Calls `std_srvs/Trigger`, one call after the other."""

from __future__ import annotations

import time
from typing import Any

import rclpy
from rclpy.node import Node
from std_srvs.srv import Trigger

from fastvla_ros.bench.peers.session import executing, spin_until


def run(*, calls: int, warm_up: int, timeout_s: float) -> dict[str, Any]:
    """Round trips [ns] of `calls` calls, after `warm_up` that do not count."""
    rclpy.init(args=[])
    node = Node("echo_client")
    client = node.create_client(Trigger, "echo")
    trips_ns: list[int] = []
    with executing(node) as executor:
        if not client.wait_for_service(timeout_sec=timeout_s):
            raise SystemExit(f"no service came within {timeout_s:.0f} s")
        for _ in range(warm_up + calls):
            start_ns = time.monotonic_ns()
            future = client.call_async(Trigger.Request())
            spin_until(executor, future, timeout_s=timeout_s, missing="no answer came")
            trips_ns.append(time.monotonic_ns() - start_ns)
    return {"trips_ns": trips_ns[warm_up:]}
