"""`/diagnostics` as tools see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ros.nodes.robot_rig import System, wait_until


@pytest.fixture
def heard(system: System) -> dict:
    """The latest status of each name."""
    from diagnostic_msgs.msg import DiagnosticArray

    latest: dict = {}

    def take(message) -> None:
        assert message.header.stamp.sec > 0
        latest.update({status.name: status for status in message.status})

    system.robot.create_subscription(DiagnosticArray, "/diagnostics", take, 10)
    return latest


def values(status) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


def test_server_and_guard_tell_how_they_are(system: System, checkpoint: Path, heard: dict):
    from diagnostic_msgs.msg import DiagnosticStatus

    system.guard()
    system.serve(checkpoint)
    server, guard = "policy_server: serving", "command_guard: commands"
    wait_until(lambda: server in heard and heard[server].level == DiagnosticStatus.OK, timeout_s=60)
    assert heard[server].hardware_id == "tabletop"
    system.client.execute("wave", timeout_s=2.0)
    wait_until(lambda: values(heard[server]).get("goals.TIMEOUT") == "1", timeout_s=60)
    latency = values(heard["policy_server: latency"])
    assert int(latency["path.count"]) == int(latency["path.le_inf"]) > 0
    assert float(latency["inference.p99_s"]) >= float(latency["inference.p50_s"]) > 0
    wait_until(lambda: int(values(heard[guard])["commands_received"]) > 0, timeout_s=60)
    assert float(values(heard["policy_server: stream front"])["rate_hz"]) > 0
    assert "policy_server: memory" in heard


def test_a_camera_that_falls_silent_is_found(system: System, checkpoint: Path, heard: dict):
    from diagnostic_msgs.msg import DiagnosticStatus

    system.serve(checkpoint)
    name = "policy_server: stream front"
    wait_until(lambda: name in heard, timeout_s=60, what="diagnostics")
    system.robot.silent = {"front"}
    wait_until(lambda: heard[name].level == DiagnosticStatus.ERROR, timeout_s=60, what="ERROR")
    assert "front" in heard["policy_server: serving"].message
