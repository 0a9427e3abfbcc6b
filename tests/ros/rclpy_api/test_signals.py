"""SIGINT and SIGTERM: contexts end, and handlers that were there stay in force."""

from __future__ import annotations

import os
import signal
import time

import pytest
import rclpy
from rclpy.signals import SignalHandlerOptions, get_current_signal_handlers_options


@pytest.fixture
def mine():
    """A handler of the program's own for SIGINT and SIGTERM."""
    calls = []

    def handle(number, frame):
        calls.append(signal.Signals(number).name)

    before = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    yield handle, calls
    for number, handler in before.items():
        signal.signal(number, handler)


def wait_until(condition, timeout_s=10.0):
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(condition())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_a_signal_ends_the_context_and_the_programs_own_handler_runs(mine, number):
    handle, calls = mine
    rclpy.init(args=[])
    assert get_current_signal_handlers_options() == SignalHandlerOptions.ALL
    os.kill(os.getpid(), number)
    assert wait_until(lambda: not rclpy.ok())
    assert wait_until(lambda: calls == [number.name])
    rclpy.try_shutdown()
    assert signal.getsignal(number) is handle


def test_signals_can_be_left_alone(mine):
    _, calls = mine
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    assert get_current_signal_handlers_options() == SignalHandlerOptions.NO
    os.kill(os.getpid(), signal.SIGINT)
    assert wait_until(lambda: calls == ["SIGINT"])
    time.sleep(0.1)
    assert rclpy.ok()
    rclpy.shutdown()


def test_only_one_signal_can_be_asked_for(mine):
    _, calls = mine
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    assert wait_until(lambda: calls == ["SIGINT"])
    assert rclpy.ok()
    os.kill(os.getpid(), signal.SIGTERM)
    assert wait_until(lambda: not rclpy.ok())
    rclpy.try_shutdown()
