"""What is compared, and what the machine's settings do to it."""

import pytest

from fastvla_ros.bench import comparison
from fastvla_ros.bench.comparison import Plan, compare, lines, pair_name, receive_buffer_note
from fastvla_ros.bench.runtimes import Runtime


@pytest.fixture
def two_runtimes(monkeypatch):
    """Two runtimes whose programs are not run: publisher and subscriber are noted."""
    runtimes = [Runtime("embedded", "python3", {}, {"cyclonedds": "11.0.1"})]
    runtimes.append(Runtime("rclpy", "python3", {}, {"version": "7.1.3"}))
    measured = []

    def measure(first, second):
        measured.append((first.name, second.name))
        return {"lost": 0, "p50_ms": float(len(measured))}

    monkeypatch.setattr(comparison, "find_runtimes", lambda: runtimes)
    monkeypatch.setattr(Plan, "measurements", lambda self: {"images": measure})
    monkeypatch.setenv("ROS_DOMAIN_ID", "0")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return measured


def test_both_runtimes_and_their_mixtures_are_measured_in_turns(two_runtimes):
    report = compare(Plan.lasting(1.0), runs=2)
    once = [("embedded", "embedded"), ("embedded", "rclpy"), ("rclpy", "embedded")]
    assert two_runtimes == 2 * [*once, ("rclpy", "rclpy")]
    assert list(report["summary"]["images"]) == [pair_name(a, b) for a, b in two_runtimes[:4]]
    assert report["summary"]["images"]["rclpy"]["p50_ms"] == {"median": 6, "min": 4, "max": 8}
    assert [x["run"] for x in report["samples"]] == 4 * [0] + 4 * [1]


def test_the_report_names_versions_settings_and_load(two_runtimes):
    report = compare(Plan.lasting(1.0))
    printed = "\n".join(lines(report))
    assert "rclpy: version 7.1.3" in printed
    assert report["rmem_max_means"] in printed
    assert report["missing"] is None
    for column in ("embedded", "rclpy", "embedded to rclpy", "rclpy to embedded"):
        assert column in printed
    if report["samples"][0]["other_cores"] is not None:
        assert "other processes used up to" in printed


def test_without_rclpy_there_is_one_column_and_a_word_why(two_runtimes, monkeypatch):
    alone = [Runtime("embedded", "python3", {}, {})]
    monkeypatch.setattr(comparison, "find_runtimes", lambda: alone)
    report = compare(Plan.lasting(1.0))
    assert list(report["summary"]["images"]) == ["embedded"]
    assert "FASTVLA_ROS2_SETUP" in "\n".join(lines(report))


@pytest.mark.parametrize(("limit", "words"), [(212992, "sysctl"), (4194304, "hold"), (None, "no")])
def test_the_receive_buffer_is_judged(limit, words):
    assert words in receive_buffer_note(limit)


def test_a_short_run_is_small_and_a_long_one_bounded():
    short, long = Plan.lasting(0.01), Plan.lasting(600.0)
    assert (short.images.frames, short.calls.calls, short.starts.starts) == (1, 1, 1)
    assert long.images.frames == 18000
    assert (long.calls.calls, long.starts.starts) == (2000, 5)
