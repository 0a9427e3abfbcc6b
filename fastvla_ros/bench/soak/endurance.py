"""The soak: goal after goal at 30 Hz with three cameras, and what grows or is late meanwhile."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from fastvla_core.errors import FastVLAError
from fastvla_core.robot.contract_file import load_contract
from fastvla_ros.bench.soak.bringup import FIXED, BringupProcess
from fastvla_ros.bench.soak.goals import Operator
from fastvla_ros.bench.soak.monitor import Monitor, judge, summary
from fastvla_ros.bench.soak.violations import Violations
from fastvla_ros.bench.soak.watch import DiagnosticsWatch
from fastvla_ros.bringup_spin import SharedProcess
from fastvla_ros.demo.domain import keep_to_this_machine, reserve_domain

if TYPE_CHECKING:
    from fastvla_ros.nodes.task_client import GoalReport

CAMERA_HZ = 30.0
TASKS = (
    "pick up the red cube",
    "pick up the green cube",
    "put the red cube in the bowl",
    "pick up the blue cube",
)
# The black box has filled its 30 s, allocators and caches have what they need.
_WARM_UP_SHARE, _LONGEST_WARM_UP_S = 0.1, 180.0
_GOAL_TIMEOUT_S = 30.0
_START_TIMEOUT_S = 120.0
_SAMPLES, _SHORTEST_PERIOD_S, _LONGEST_PERIOD_S = 60, 0.1, 2.0
_QUIET_S = 0.1
_SEPARATE = ("command_guard", "black_box")
_THIRD_CAMERA = "front_depth"
_PARAMETERS = {
    "sim_robot": {"camera_rate_hz": CAMERA_HZ, "scene_rate_hz": CAMERA_HZ},
    # A second thread of PyTorch waits for the first at every layer while the simulator renders.
    "policy_server": {"threads": 1},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """One goal, and how many commands were seen from outside."""

    report: GoalReport
    commands_seen: int
    gaps_s: tuple[float, ...]


def soak(*, minutes: float, policy: str, seed: int) -> tuple[dict[str, Any], Violations]:
    """Run robot, server, guard and black box for `minutes` after a warm-up.

    Args:
        policy: A checkpoint, served in NF4; or `fixed`, where the processor is needed elsewhere.

    Raises:
        FastVLAError: the graph does not come up.
    """
    violations = Violations("soak", seed=seed)
    with reserve_domain() as domain, tempfile.TemporaryDirectory() as folder:
        keep_to_this_machine(domain)
        with (
            BringupProcess(
                Path(folder),
                policy=policy,
                parameters=_PARAMETERS,
                arguments=["--contract", str(_contract(Path(folder)))],
            ) as bringup,
            SharedProcess() as process,
        ):
            run = _Soak(bringup, Operator(process), violations)
            report = run.run(minutes=minutes, seed=seed)
        log = bringup.log.read_text(encoding="utf-8", errors="replace").splitlines()
    report = {"policy": "fixed chunks" if policy == FIXED else f"{policy}, nf4", **report}
    return {**report, "log_lines": len(log), "log_last": log[-20:]}, violations


def _contract(folder: Path) -> Path:
    """The table-top robot with a third camera that two cores can draw at 30 Hz.

    A picture for people (480x360 with shadows) takes 40 ms of a core without a GPU; a depth camera
    of the policy's size takes 2 ms, and goes the same way to the black box.
    """
    contract = load_contract("tabletop").to_dict()
    front = contract["cameras"]["front"]
    del contract["cameras"]["scene"]
    contract["cameras"][_THIRD_CAMERA] = {
        **front,
        "topic": "front_depth/image_raw",
        "kind": "depth",
        "encoding": "16UC1",
        "required": False,
        "policy": False,
    }
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(contract, sort_keys=False), encoding="utf-8")
    return path


class _Soak:
    def __init__(self, bringup: BringupProcess, operator: Operator, violations: Violations) -> None:
        self._bringup, self._operator, self._violations = bringup, operator, violations
        self._diagnostics = DiagnosticsWatch(operator.node)
        self._period_s = 1 / operator.contract.control_rate_hz
        self._goals = 0

    def run(self, *, minutes: float, seed: int) -> dict[str, Any]:
        pids = self._bringup.pids(expected=_SEPARATE, timeout_s=_START_TIMEOUT_S)
        self._operator.wait_until_ready(timeout_s=_START_TIMEOUT_S, watch=self._bringup.check)
        duration_s = minutes * 60
        warm_up_s = min(_WARM_UP_SHARE * duration_s, _LONGEST_WARM_UP_S)
        try:
            # What is late while everything starts is nobody's matter.
            self._pursue(warm_up_s, seed=seed, judge_goal=lambda goal, where: None)
            self._diagnostics.forget()
            period_s = min(max(duration_s / _SAMPLES, _SHORTEST_PERIOD_S), _LONGEST_PERIOD_S)
            with Monitor({**pids, "bench": os.getpid()}, period_s=period_s) as monitor:
                ended = self._pursue(duration_s, seed=seed, judge_goal=self._judge_goal)
        finally:
            self._operator.close()
        for name in sorted(monitor.ended):
            self._violations.add("the process ended", where=name)
        processes = {name: summary(samples) for name, samples in monitor.samples.items()}
        judge({name: processes[name] for name in pids}, self._violations)
        return {
            "minutes": minutes,
            "warm_up_s": warm_up_s,
            "cameras": 3,
            "camera_hz": CAMERA_HZ,
            **_figures(ended, period_s=self._period_s),
            **self._diagnostics.summary(),
            "processes": processes,
        }

    def _pursue(
        self, duration_s: float, *, seed: int, judge_goal: Callable[[Ended, str], None]
    ) -> list[Ended]:
        """Goal after goal for so long."""
        end = time.monotonic() + duration_s
        ended = []
        while (left_s := end - time.monotonic()) > 0.5:
            task = TASKS[self._goals % len(TASKS)]
            where = f"goal {self._goals}, '{task}'"
            try:
                self._operator.set_scene(seed + self._goals)
                goal = self._goal(task, min(left_s, _GOAL_TIMEOUT_S))
            except FastVLAError as error:
                self._violations.add(str(error), where=where)
                self._bringup.check()
            else:
                judge_goal(goal, where)
                ended.append(goal)
            self._goals += 1
        return ended

    def _goal(self, task: str, timeout_s: float) -> Ended:
        operator = self._operator
        operator.commands.forget()
        report = operator.client.execute(task, timeout_s=timeout_s, watch=self._bringup.check)
        # Nobody cancels here but Ctrl-C, which the client makes a cancel of.
        if report.status == "CANCELED":
            raise KeyboardInterrupt
        seen = operator.commands.settle(
            expected=report.commands_sent, quiet_s=_QUIET_S, timeout_s=2.0
        )
        gaps_s = np.diff(operator.commands.times_s())
        return Ended(report=report, commands_seen=seen, gaps_s=tuple(gaps_s.tolist()))

    def _judge_goal(self, goal: Ended, where: str) -> None:
        report, violations = goal.report, self._violations
        violations.expect(
            report.error in ("NONE", "TIMEOUT"),
            f"ended with {report.error} ({report.message})",
            where=where,
        )
        violations.expect(
            goal.commands_seen == report.commands_sent,
            f"{report.commands_sent} commands were sent, {goal.commands_seen} were seen",
            where=where,
        )
        violations.expect(
            report.deadline_misses == 0, f"{report.deadline_misses} deadlines missed", where=where
        )


def _figures(ended: list[Ended], *, period_s: float) -> dict[str, Any]:
    reports = [goal.report for goal in ended]
    gaps_s = np.array([gap for goal in ended for gap in goal.gaps_s] or [np.nan])
    running_s = sum(report.elapsed_s for report in reports)
    return {
        "goals": len(reports),
        "errors": dict(Counter(report.error for report in reports)),
        "outcomes": dict(Counter(report.outcome for report in reports)),
        "running_s": round(running_s, 1),
        "commands": sum(report.commands_sent for report in reports),
        "commands_limited": sum(report.commands_limited for report in reports),
        "inferences": sum(report.inferences for report in reports),
        "inference_p99_ms": round(max((r.latency_p99_s for r in reports), default=0.0) * 1e3, 2),
        "deadline_misses": sum(report.deadline_misses for report in reports),
        "seen_late": int((gaps_s > 1.5 * period_s).sum()),
        "seen_longest_gap_ms": round(float(gaps_s.max()) * 1e3, 2),
    }
