"""From image arrival to command, and the control rate, with a policy that costs nothing."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from fastvla_core.robot.contract_file import load_contract
from fastvla_ros.bringup_description import BringupOptions, NodeSpec, describe
from fastvla_ros.bringup_run import Bringup, running
from fastvla_ros.demo.domain import keep_to_this_machine, reserve_domain

if TYPE_CHECKING:
    from fastvla_ros.nodes.task_client import GoalReport

_SERVER_TIMEOUT_S = 30.0
# Nobody can judge it, so the goal runs until its deadline.
_TASK = "sway"


def measure(*, seconds: float = 60.0, contract: str = "tabletop") -> dict[str, Any]:
    """Run simulated robot, server and guard for `seconds`, with a policy of fixed chunks.

    Returns:
        `processing_*`: from the arrival of the last image of an observation to the command that
        used it, without inference and without waiting for the next control tick; `with_waiting_*`
        includes that wait (up to one period). Rates at the server and behind the guard, deadlines
        missed by more than half a period, CPU time of both processes. Times in ms.

    Raises:
        FastVLAError: the graph does not come up.
    """
    options = BringupOptions(
        contract=contract, checkpoint="fixed chunks", log_level="error", black_box=False
    )
    specs = [without_model(spec) for spec in describe(options)]
    with reserve_domain() as domain:
        keep_to_this_machine(domain)
        with running(options, specs=specs) as bringup:
            return _sway(bringup, seconds=seconds, contract=contract)


def without_model(spec: NodeSpec) -> NodeSpec:
    """The same node; the policy server with the policy of fixed chunks."""
    if spec.name != "policy_server":
        return spec
    return dataclasses.replace(
        spec, module="fastvla_ros.bench.fixed_server", class_name="FixedPolicyServerNode"
    )


def _sway(bringup: Bringup, *, seconds: float, contract: str) -> dict[str, Any]:
    from rclpy.node import Node

    from fastvla_ros.nodes.task_client import TaskClient

    node = bringup.process.add(Node("bench", use_global_arguments=False))
    arrivals = _Arrivals(node, contract)
    client = TaskClient(node)
    try:
        client.wait_for_server(timeout_s=_SERVER_TIMEOUT_S)
        cpu_s = _cpu_s(bringup)
        arrivals.start()
        report = client.execute(_TASK, timeout_s=seconds, watch=bringup.check)
        arrivals.stop()
        cpu_s = _cpu_s(bringup) - cpu_s
    finally:
        client.destroy()
    rate_hz = load_contract(contract).control_rate_hz
    return {
        **_latencies(list(bringup.nodes["policy_server"].latencies)),
        **_rates(report, arrivals, rate_hz=rate_hz),
        "cpu_cores_used": round(cpu_s / report.elapsed_s, 3),
        "simulation_lost_ms": bringup.nodes["sim_robot"].loop.lost_ns / 1e6,
    }


def _latencies(paths: list[Any]) -> dict[str, float]:
    numbers: dict[str, float] = {"chunks": len(paths)}
    for name, values_s in (
        ("processing", [path.processing_s for path in paths]),
        ("with_waiting", [path.overhead_s for path in paths]),
    ):
        for share in (50, 99):
            value_ms = float(np.percentile(values_s, share)) * 1e3 if values_s else float("nan")
            numbers[f"{name}_p{share}_ms"] = round(value_ms, 3)
    return numbers


def _rates(report: GoalReport, arrivals: _Arrivals, *, rate_hz: float) -> dict[str, float]:
    gaps_s = np.diff(arrivals.times_s)
    late = int((gaps_s > 1.5 / rate_hz).sum())
    return {
        "seconds": round(report.elapsed_s, 3),
        "rate_wanted_hz": rate_hz,
        "rate_held_hz": round(report.commands_sent / report.elapsed_s, 3),
        "deadlines_missed": report.deadline_misses,
        "behind_guard_rate_hz": round(1 / float(gaps_s.mean()), 3) if gaps_s.size else 0.0,
        "behind_guard_late": late,
        "behind_guard_longest_gap_ms": round(float(gaps_s.max(initial=0.0)) * 1e3, 3),
    }


class _Arrivals:
    """When commands come out of the guard."""

    def __init__(self, node: Any, contract: str) -> None:
        from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
        from trajectory_msgs.msg import JointTrajectory

        self.times_s: list[float] = []
        self._on = threading.Event()
        node.create_subscription(
            JointTrajectory,
            load_contract(contract).outputs.topic,
            self._take,
            10,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )

    def start(self) -> None:
        """Take note from now on."""
        self._on.set()

    def stop(self) -> None:
        """Take note no longer."""
        self._on.clear()

    def _take(self, _message: Any) -> None:
        if self._on.is_set():
            self.times_s.append(time.monotonic())


def _cpu_s(bringup: Bringup) -> float:
    ticks = os.sysconf("SC_CLK_TCK")
    total_s = time.process_time()
    for child in bringup.children:
        with open(f"/proc/{child.pid}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
        # proc(5): utime and stime are the fields 14 and 15; two stand before the bracket.
        total_s += (int(fields[11]) + int(fields[12])) / ticks
    return total_s
