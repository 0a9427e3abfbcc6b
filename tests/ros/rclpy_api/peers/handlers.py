"""A program with signal handlers of its own: says whether its context lives on after a signal."""

import signal
import sys
import time

from fastvla_ros.runtime import ensure_ros

ensure_ros()

import rclpy  # noqa: E402
from rclpy.signals import (  # noqa: E402
    SignalHandlerOptions,
    get_current_signal_handlers_options,
)

came = []


def handle(number, frame):
    came.append(signal.Signals(number).name)


def wait_until(condition, timeout_s):
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    rclpy.init(args=[], signal_handler_options=getattr(SignalHandlerOptions, sys.argv[1]))
    print(f"options {int(get_current_signal_handlers_options())}", flush=True)
    wait_until(lambda: came, 60.0)
    # Time for what must not happen, where nothing ends the context.
    wait_until(lambda: not rclpy.ok(), 1.0 if "lives" in sys.argv else 30.0)
    print(came, rclpy.ok(), flush=True)
    rclpy.try_shutdown()
    kept = all(signal.getsignal(n) is handle for n in (signal.SIGINT, signal.SIGTERM))
    print(f"kept {kept}", flush=True)


main()
