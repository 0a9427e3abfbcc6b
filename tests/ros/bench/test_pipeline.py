"""The bench of the ROS path measures the real graph, in a process of its own as users run it."""

import json
import math
import subprocess
import sys


def test_a_short_run_gives_every_number(tmp_path):
    report = tmp_path / "bench.json"
    command = [sys.executable, "-m", "fastvla_core.cli", "bench", "ros", "--seconds", "3"]
    done = subprocess.run(
        [*command, "--json", str(report)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    everything = json.loads(report.read_text())
    numbers = everything["ros"]
    assert all(isinstance(value, (int, float)) for value in numbers.values())
    assert not any(math.isnan(value) for value in numbers.values())
    assert numbers["chunks"] >= 3
    assert 0 < numbers["processing_p50_ms"] <= numbers["with_waiting_p50_ms"]
    assert numbers["processing_p50_ms"] <= numbers["processing_p99_ms"]
    assert 0 < numbers["rate_held_hz"] <= 33
    assert numbers["cpu_cores_used"] > 0
    compared = everything["runtimes"]
    assert compared["rmem_max_means"] in done.stdout
    assert len(compared["summary"]) == 4
    for name, pairs in compared["summary"].items():
        assert name in done.stdout
        assert set(pairs) >= {"embedded"}
        for figures in pairs.values():
            assert all(x["min"] <= x["median"] <= x["max"] for x in figures.values())
            middle = figures.get("p50_ms") or figures["p50_s"]
            assert middle["median"] > 0
