"""Whose fault it is that a clean goal did not move the robot: the nodes', or the machine's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import pytest

from fastvla_ros.bench.processes import OtherLoad
from fastvla_ros.bench.soak.malformed import has_worked, is_starved
from fastvla_ros.bench.soak.proc import usage
from fastvla_ros.runtime import ensure_ros

ALL = float(os.cpu_count() or 1)


def ended(error: str = "TIMEOUT", *, commands: int = 150) -> Any:
    ensure_ros()
    from fastvla_ros.nodes.task_goal import GoalReport

    return GoalReport(
        task="sway",
        status="ABORTED",
        error=error,
        message="",
        outcome="unknown",
        commands_sent=commands,
    )


def test_a_goal_that_runs_to_its_deadline_and_moves_has_worked():
    assert has_worked(ended())
    assert not has_worked(ended(commands=12))
    assert not has_worked(ended("STALE_SENSOR"))


@pytest.mark.parametrize("report", [ended(commands=12), ended("STALE_SENSOR")])
def test_a_slow_one_is_excused_on_a_machine_that_others_use(report):
    assert is_starved(report, other_cores=ALL)
    assert not is_starved(report, other_cores=0.1)
    assert not is_starved(report, other_cores=None)


def test_what_worked_and_what_no_load_explains_are_judged_anyway():
    assert not is_starved(ended(), other_cores=ALL)
    assert not is_starved(ended("CONTROLLER_LOST"), other_cores=ALL)


def test_what_our_own_processes_use_is_not_the_load_of_others():
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])

    def used_s() -> float:
        return usage(spinner.pid, at_s=0.0).cpu_s

    try:
        before_s, start_s = used_s(), time.monotonic()
        all_others, without_it = OtherLoad(), OtherLoad(used_s)
        while used_s() - before_s < 0.5:
            time.sleep(0.01)
        cores = (used_s() - before_s) / (time.monotonic() - start_s)
        difference = (all_others.cores() or 0.0) - (without_it.cores() or 0.0)
    finally:
        spinner.kill()
        spinner.wait()
    assert difference == pytest.approx(cores, rel=0.5)
