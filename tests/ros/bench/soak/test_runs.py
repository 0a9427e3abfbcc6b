"""Short versions of the three parts, from the command line, on the real nodes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastvla_ros.bench.soak.plan import FAULTS
from tests.core.bags.small_disk import can_mount

# What a machine that others use may bring about in a run of seconds, and an hour must not.
MACHINE = ("deadlines missed", "memory grew", "threads became", "descriptors became")


def bench_soak(report: Path, *, minutes: float = 0, goals: int = 0, malformed: int = 0):
    """Exit status, output and report."""
    command = [sys.executable, "-m", "fastvla_core.cli", "bench", "soak", "--seed", "1"]
    command += ["--minutes", str(minutes), "--goals", str(goals), "--malformed", str(malformed)]
    done = subprocess.run(
        [*command, "--json", str(report)], capture_output=True, text=True, check=False
    )
    assert report.exists(), done.stderr
    found = json.loads(report.read_text())["soak"]
    assert done.returncode == (1 if found["violations"] else 0)
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_seconds_of_work(tmp_path):
    found = bench_soak(tmp_path / "soak.json", minutes=0.15)
    other = [v for v in found["violations"] if not any(word in v["what"] for word in MACHINE)]
    assert other == []
    soak = found["soak"]
    assert soak["goals"] >= 1
    assert soak["commands"] > 50
    assert set(soak["rates_hz"]) == {"front", "wrist", "joint_states"}
    assert set(soak["processes"]) == {"bringup", "command_guard", "black_box", "bench"}
    for process in soak["processes"].values():
        assert process["samples"] > 10
        assert process["rss_first_mib"] > 10
        assert process["cpu_cores"] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not can_mount(), reason="no user namespaces here")
def test_every_fault_once(tmp_path):
    found = bench_soak(tmp_path / "faults.json", goals=2 * len(FAULTS))
    assert found["violations"] == []
    faults = found["faults"]
    assert faults["faults"] == dict.fromkeys(sorted(FAULTS), 1)
    assert faults["goals"] == sum(faults["codes"].values()) == 2 * len(FAULTS)
    assert faults["cancels"] > 0
    assert faults["bags_read"] > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not can_mount(), reason="no user namespaces here")
def test_hundreds_of_malformed_messages(tmp_path):
    found = bench_soak(tmp_path / "malformed.json", malformed=300)
    assert found["violations"] == []
    assert found["malformed"]["messages"] == 300
    malformed = found["malformed"]
    assert malformed["clean_goals"] == {"TIMEOUT": 1} or malformed["starved"] == 3
