"""What the runtime takes from its surroundings: variables, the kernel, packages."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import rclpy
from rclpy.node import Node

from fastvla_core.errors import DependencyError, RosError
from fastvla_ros.embedded.wire import config, participant
from fastvla_ros.embedded.wire.participant import self_test
from fastvla_ros.runtime import uses_embedded_ros
from tests.ros.ros_session import ROOT


@pytest.mark.parametrize("value", ["x", "-1", "300"])
def test_a_bad_domain_id_is_refused(monkeypatch, value):
    monkeypatch.setenv("ROS_DOMAIN_ID", value)
    with pytest.raises(RosError, match="ROS_DOMAIN_ID"):
        config.domain_id()


def test_discovery_stays_on_loopback_unless_it_is_widened(monkeypatch):
    monkeypatch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE", raising=False)
    assert 'name="lo"' in config.cyclonedds_config()
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    assert 'name="lo"' not in config.cyclonedds_config()
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")
    with pytest.raises(RosError, match="OFF"):
        config.cyclonedds_config()


@pytest.fixture
def rmem_max(monkeypatch, tmp_path):
    """The kernel's limit as this process sees it."""
    limit = tmp_path / "rmem_max"
    monkeypatch.setattr(config, "RMEM_MAX", limit)
    config.warn_about_receive_buffer.cache_clear()
    yield limit
    config.warn_about_receive_buffer.cache_clear()


def test_a_small_receive_buffer_is_reported_once_with_the_sysctl(rmem_max, capsys):
    rmem_max.write_text("212992\n")
    for _ in range(2):
        context = rclpy.Context()
        rclpy.init(args=[], context=context)
        context.shutdown()
    text = capsys.readouterr().err
    assert text.count("sysctl -w net.core.rmem_max=4194304") == 1


def test_a_large_receive_buffer_is_not_reported(rmem_max, capsys):
    rmem_max.write_text("4194304\n")
    config.warn_about_receive_buffer()
    assert capsys.readouterr().err == ""


def test_another_sample_layout_is_found_at_the_start(ros, monkeypatch):
    monkeypatch.setattr(participant.Reader, "take", lambda reader: [])
    with pytest.raises(DependencyError, match="another layout"):
        self_test(ros.context.participant)


def test_threads_and_participants_end_with_the_context():
    before = threading.active_count()
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node = Node("node", context=context)
    assert threading.active_count() == before + 1
    context.shutdown()
    node.destroy_node()
    assert threading.active_count() == before


def test_the_embedded_runtime_is_in_use_and_says_so():
    assert uses_embedded_ros()


CHILD = """
import sys
import fastvla_ros.runtime
assert "rclpy" not in sys.modules and "cyclonedds" not in sys.modules
{hide}
from fastvla_core.errors import {error}
try:
    fastvla_ros.runtime.ensure_ros()
except {error} as caught:
    print(caught)
"""


def child(tmp_path, hide, error):
    code = CHILD.format(hide=hide, error=error)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        check=True,
    )
    return done.stdout


def test_a_missing_package_is_named_with_the_mend(tmp_path):
    text = child(tmp_path, "sys.modules['cyclonedds'] = None", "DependencyError")
    assert "cyclonedds" in text
    assert "pip install cyclonedds==11.0.1" in text


def test_a_real_rclpy_that_is_broken_is_not_hidden(tmp_path):
    (tmp_path / "rclpy.py").write_text("import _rclpy_of_another_python\n")
    text = child(tmp_path, "", "RosError")
    assert "_rclpy_of_another_python" in text


def test_a_real_rclpy_without_our_interfaces_asks_for_the_build(tmp_path):
    (tmp_path / "rclpy.py").write_text("")
    text = child(tmp_path, "", "DependencyError")
    assert "colcon build --packages-select fastvla_msgs" in text
