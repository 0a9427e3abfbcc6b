"""Parameters of a running policy server, changed from outside."""

from pathlib import Path

import pytest

from tests.ros.nodes.robot_rig import System


def set_parameter(node, name: str, value):
    from rclpy.parameter import Parameter

    (result,) = node.set_parameters([Parameter(name, value=value)])
    return result


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("quantization", "int3", "one of none, nf4, int8"),
        ("engine", "fast", "one of auto, eager, compiled"),
        ("execute_steps", "two", "its type is int"),
        ("execute_steps", -1, "set it above 0"),
        ("on_busy", True, "its type is str"),
        ("remote_jpeg_quality", 101, "set it to 1 to 100"),
        ("token_pruning", "random", "one of stored, none, adaptive"),
    ],
)
def test_a_wrong_value_is_refused_with_the_reason_and_the_old_one_stays(
    system: System, checkpoint: Path, name: str, value, reason: str
):
    node = system.serve(checkpoint, autostart=False)
    before = node.get_parameter(name).value
    result = set_parameter(node, name, value)
    assert not result.successful
    assert reason in result.reason
    assert node.get_parameter(name).value == before


def test_a_number_without_a_point_is_a_time(system: System, checkpoint: Path):
    node = system.serve(checkpoint, autostart=False)
    assert set_parameter(node, "default_timeout_s", 5).successful
    assert node.get_parameter("default_timeout_s").value == 5
    # The node's own parameters are none of the server's.
    assert set_parameter(node, "use_sim_time", False).successful


def test_visual_tokens_are_checked_together(system: System, checkpoint: Path):
    node = system.serve(checkpoint, autostart=False)
    assert set_parameter(node, "token_keep", 0.375).successful
    assert set_parameter(node, "token_pruning", "adaptive").successful
    result = set_parameter(node, "token_pruning", "pool")
    assert not result.successful
    assert "cannot keep 0.375" in result.reason
    # Only what is on is looked at.
    assert set_parameter(node, "token_pruning", "none").successful
    assert set_parameter(node, "token_keep", 2).successful
