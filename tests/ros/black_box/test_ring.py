"""The last seconds in memory: bounded in time and bytes, and always all of the time."""

from __future__ import annotations

import itertools
import random

from fastvla_ros.black_box.ring import Recorded, Ring
from fastvla_ros.recording.streams import Stream

S = 1_000_000_000
FRONT = Stream(name="front", topic="front", type_name="sensor_msgs/msg/Image", is_camera=True)
JOINTS = Stream(name="joint_states", topic="joint_states", type_name="sensor_msgs/msg/JointState")
TASK = Stream(
    name="current_task", topic="current_task", type_name="std_msgs/msg/String", latched=True
)


def recorded(stream: Stream, *, at_s: float, size: int = 100) -> Recorded:
    at_ns = round(at_s * S)
    return Recorded(
        stream=stream, topic=stream.topic, data=bytes(size), stamp_ns=at_ns, steady_ns=at_ns
    )


def stamps_s(ring: Ring, stream: Stream, *, at_s: float) -> list[float]:
    messages = ring.snapshot(steady_ns=round(at_s * S))
    return [m.stamp_ns / S for m in messages if m.stream is stream]


def test_only_the_last_seconds_are_kept():
    ring = Ring(seconds=2.0, max_bytes=1 << 20, cameras=1)
    for k in range(100):
        ring.add(recorded(JOINTS, at_s=k / 10))
        ring.add(recorded(FRONT, at_s=k / 10))
    assert stamps_s(ring, JOINTS, at_s=9.9) == [k / 10 for k in range(79, 100)]
    assert stamps_s(ring, FRONT, at_s=9.9) == [k / 10 for k in range(79, 100)]


def test_pictures_beyond_the_budget_are_thinned_out_not_cut_off():
    megabyte, rate = 1_000_000, 30
    ring = Ring(seconds=30.0, max_bytes=200 * megabyte, cameras=1)
    for k in range(60 * rate):
        ring.add(recorded(FRONT, at_s=k / rate, size=megabyte))
        assert ring.size <= 200 * megabyte
    kept = stamps_s(ring, FRONT, at_s=60.0)
    gaps = [b - a for a, b in itertools.pairwise(kept)]
    # The newest seconds are whole, and what is older reaches back all the time.
    assert all(abs(gap - 1 / rate) < 1e-6 for gap in gaps[-60:])
    assert kept[0] < 60 - 29
    assert max(gaps) < 1.0
    assert ring.left_out["front"] > 1000


def test_pictures_never_displace_commands():
    ring = Ring(seconds=30.0, max_bytes=8_000_000, cameras=1)
    ring.add(recorded(JOINTS, at_s=0.0))
    for k in range(100):
        ring.add(recorded(FRONT, at_s=k / 10, size=1_000_000))
    assert stamps_s(ring, JOINTS, at_s=10.0) == [0.0]


def test_small_messages_are_bounded_too():
    ring = Ring(seconds=1000.0, max_bytes=100_000, cameras=0)
    for k in range(1000):
        ring.add(recorded(JOINTS, at_s=k, size=random.Random(k).randrange(1000)))
        assert ring.size <= 100_000
    assert stamps_s(ring, JOINTS, at_s=999)[-1] == 999


def test_thinning_ends_when_pictures_get_smaller():
    ring = Ring(seconds=10.0, max_bytes=10_000_000, cameras=1)
    for k in range(300):
        ring.add(recorded(FRONT, at_s=k / 30, size=500_000))
    for k in range(300, 1200):
        ring.add(recorded(FRONT, at_s=k / 30, size=25_000))
    assert len(stamps_s(ring, FRONT, at_s=1199 / 30)) == 301


def test_what_is_latched_stays_and_stands_at_the_start_with_its_own_time():
    ring = Ring(seconds=2.0, max_bytes=1 << 20, cameras=0)
    ring.add(recorded(TASK, at_s=1.0))
    for k in range(100):
        ring.add(recorded(JOINTS, at_s=k))
    first = ring.snapshot(steady_ns=99 * S)[0]
    assert first.stream is TASK
    assert (first.stamp_ns, first.latched_ns) == (97 * S, 1 * S)


def test_what_is_latched_is_not_kept_twice():
    ring = Ring(seconds=2.0, max_bytes=1 << 20, cameras=0)
    ring.add(recorded(TASK, at_s=1.0))
    (only,) = ring.snapshot(steady_ns=1 * S)
    assert only.latched_ns is None


def test_cleared_but_for_what_is_latched():
    ring = Ring(seconds=2.0, max_bytes=1 << 20, cameras=1)
    for stream in (TASK, JOINTS, FRONT):
        ring.add(recorded(stream, at_s=1.0))
    ring.clear()
    assert [m.stream for m in ring.snapshot(steady_ns=1 * S)] == [TASK]
