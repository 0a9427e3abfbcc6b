"""What a person who records should be told: once each, in words."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fastvla_ros.recording.streams import Stream
from fastvla_ros.recording.watch import StreamWatch, why_silent

FRONT = Stream(
    name="front", topic="front", type_name="sensor_msgs/msg/Image", is_camera=True, is_sensor=True
)
TASK = Stream(name="task", topic="task", type_name="std_msgs/msg/String", latched=True)


@pytest.fixture
def watch() -> StreamWatch:
    return StreamWatch([FRONT, TASK])


def test_a_stream_that_is_there_from_the_start_is_no_news(watch):
    assert [watch.on_message("front", at_s=k / 30) for k in range(60)] == [""] * 60
    assert watch.counts == {"front": 60, "task": 0}
    assert watch.fallen_silent(now_s=2.0) == []


def test_a_stream_that_comes_late_is_told_once(watch):
    assert watch.on_message("front", at_s=12.3) == "front comes from now on, 12.3 s after the start"
    assert watch.on_message("front", at_s=12.4) == ""


def test_a_stream_that_stops_and_comes_back(watch):
    for k in range(30):
        watch.on_message("front", at_s=k / 30)
    assert watch.fallen_silent(now_s=2.0) == []
    assert watch.fallen_silent(now_s=4.0) == ["front has stopped: nothing for 3.0 s"]
    assert watch.fallen_silent(now_s=5.0) == []
    assert watch.on_message("front", at_s=6.0) == "front is back after 5.0 s"


def test_a_slow_stream_may_pause_longer(watch):
    for k in range(5):
        watch.on_message("front", at_s=float(k))
    assert watch.fallen_silent(now_s=10.0) == []
    assert watch.fallen_silent(now_s=15.0) != []


def test_what_is_latched_never_falls_silent(watch):
    watch.on_message("task", at_s=0.0)
    watch.on_message("task", at_s=0.1)
    assert watch.fallen_silent(now_s=100.0) == []


def test_a_missing_stream_is_told_once(watch):
    assert watch.missing() == [FRONT, TASK]
    assert watch.miss(FRONT)
    assert not watch.miss(FRONT)
    assert "comes from now on" in watch.on_message("front", at_s=1.0)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([], "nobody publishes '/front'"),
        (["sensor_msgs/msg/CompressedImage"], "as sensor_msgs/msg/CompressedImage, not as"),
        (["sensor_msgs/msg/Image"], "/left/driver publishes '/front', and no message arrives"),
    ],
)
def test_the_graph_says_why_nothing_comes(kinds, words):
    publishers = [
        SimpleNamespace(node_name="driver", node_namespace="/left", topic_type=kind)
        for kind in kinds
    ]
    node = SimpleNamespace(
        resolve_topic_name=lambda topic: f"/{topic}",
        get_publishers_info_by_topic=lambda _: publishers,
    )
    assert words in why_silent(node, FRONT)
