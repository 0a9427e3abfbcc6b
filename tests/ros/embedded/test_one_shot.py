"""The timer that is put off more often than it fires."""

from __future__ import annotations

import os
import select
import time

import pytest

from fastvla_ros.embedded.wire.one_shot import OneShot

SOON_NS, LATE_NS = 20_000_000, 3_600_000_000_000


@pytest.fixture
def timer():
    made = OneShot(SOON_NS)
    yield made
    made.close()


def has_fired(timer, within_s=0.0):
    return bool(select.select([timer._file], [], [], within_s)[0])


def test_it_fires_once_after_the_delay(timer):
    start_ns = time.monotonic_ns()
    timer.start()
    timer.wait()
    assert time.monotonic_ns() - start_ns >= SOON_NS
    assert not has_fired(timer, 3 * SOON_NS * 1e-9)


def test_it_can_be_stopped_also_after_it_fired(timer):
    timer.start()
    timer.stop()
    assert not has_fired(timer, 3 * SOON_NS * 1e-9)
    timer.fire()
    assert has_fired(timer, 10.0)
    timer.stop()
    assert not has_fired(timer)


def test_a_new_start_puts_it_off_and_to_fire_does_not_wait():
    timer = OneShot(LATE_NS)
    timer.fire()
    assert has_fired(timer, 10.0)
    timer.start()
    assert not has_fired(timer)
    timer.close()


def test_closed_it_holds_nothing_and_setting_it_does_nothing(timer):
    before = set(os.listdir("/proc/self/fd"))
    other = OneShot(SOON_NS)
    other.close()
    other.start()
    assert set(os.listdir("/proc/self/fd")) == before
