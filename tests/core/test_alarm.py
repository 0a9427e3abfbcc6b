"""What one thread waits with."""

from __future__ import annotations

import threading
import time

from fastvla_core.alarm import Alarm


def test_it_ends_the_wait_of_its_thread():
    alarm, woken = Alarm(), threading.Event()

    def wait() -> None:
        alarm.wait(None)
        woken.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert not woken.wait(0.05)
    alarm.ring()
    assert woken.wait(10)
    waiter.join()


def test_what_rings_before_the_wait_ends_it_once():
    alarm = Alarm()
    alarm.ring()
    alarm.ring()
    begin = time.monotonic()
    alarm.wait(60)
    assert time.monotonic() - begin < 30
    begin = time.monotonic()
    alarm.wait(0.05)
    assert time.monotonic() - begin >= 0.04


def test_no_time_is_no_wait():
    Alarm().wait(0.0)
    Alarm().wait(-1.0)


def test_many_may_ring_at_once():
    alarm, start = Alarm(), threading.Barrier(4)

    def ring() -> None:
        start.wait()
        for _ in range(2000):
            alarm.ring()

    ringers = [threading.Thread(target=ring) for _ in range(4)]
    for ringer in ringers:
        ringer.start()
    while any(ringer.is_alive() for ringer in ringers):
        alarm.wait(0.01)
    for ringer in ringers:
        ringer.join()
