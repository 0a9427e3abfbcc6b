"""The thread that writes bags never takes the processor from what drives the robot."""

from __future__ import annotations

import os
import threading

import pytest

from fastvla_ros.black_box.goals import End
from fastvla_ros.black_box.keeper import Keeper
from fastvla_ros.black_box.ring import Ring
from fastvla_ros.black_box.store import BagStore


class Listener:
    """Waits for the bag."""

    def __init__(self) -> None:
        self.done = threading.Event()

    def on_kept(self, ends, kept) -> None:
        self.done.set()

    def on_not_kept(self, ends, error) -> None:
        raise AssertionError(error)


def scheduling_of_the_writer(folder) -> tuple[int, int]:
    """Policy and niceness of the thread that writes a bag."""
    found: list[tuple[int, int]] = []
    listener = Listener()

    def describe() -> dict[str, str]:
        niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        found.append((os.sched_getscheduler(0), niceness))
        return {}

    keeper = Keeper(
        Ring(seconds=1.0, max_bytes=1 << 20, cameras=0),
        BagStore(folder, keep=1, max_bytes=1 << 20),
        after_s=0.0,
        describe=describe,
        listener=listener,
    )
    keeper.keep(End(goal="", code="TIMEOUT", message=""))
    assert listener.done.wait(30)
    assert keeper.close(timeout_s=30)
    return found[0]


def test_it_is_nice(tmp_path):
    _, niceness = scheduling_of_the_writer(tmp_path)
    assert niceness >= 10


def test_at_real_time_priority_it_is_not(tmp_path):
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pytest.skip("no real-time priorities for this user")
    try:
        policy, _ = scheduling_of_the_writer(tmp_path)
    finally:
        os.sched_setscheduler(0, *before)
    assert policy == os.SCHED_OTHER
