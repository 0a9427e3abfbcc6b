"""The comparison where a real ROS 2 is installed: both runtimes and their mixtures.

Set FASTVLA_ROS2_SETUP to the script that sources it; the test's own shell must not have.
"""

import os

import pytest

from fastvla_ros.bench.comparison import Plan, compare, lines
from fastvla_ros.bench.runtimes import SETUP_VARIABLE

pytestmark = [
    pytest.mark.ros2,
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get(SETUP_VARIABLE), reason=f"{SETUP_VARIABLE} names no real ROS 2"
    ),
]
PAIRS = {"embedded", "rclpy", "embedded to rclpy", "rclpy to embedded"}


@pytest.fixture(scope="module")
def report():
    before = dict(os.environ)
    yield compare(Plan.lasting(0.5))
    os.environ.clear()
    os.environ.update(before)


def test_every_pair_is_measured_by_the_same_programs(report):
    assert report["missing"] is None
    assert report["runtimes"]["rclpy"]["version"]
    assert len(report["summary"]) == 4
    assert all(set(pairs) == PAIRS for pairs in report["summary"].values())


def test_reliable_images_all_arrive_unharmed(report):
    pairs = report["summary"]["images, reliable, depth 20"]
    for name, figures in pairs.items():
        for figure in ("lost", "duplicates", "damaged"):
            assert figures[figure]["max"] == 0, (name, figure)


def test_the_table_names_both_and_their_versions(report):
    printed = "\n".join(lines(report))
    assert "rmw rmw_" in printed
    assert all(name in printed for name in PAIRS)
