"""One configuration of the wire for both runtimes, and Ctrl-C for programs that tests start."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
from collections.abc import Iterator

import pytest

from fastvla_ros.bench.runtimes import SAME_WIRE

if importlib.util.find_spec("rclpy") is not None:
    # With the fragments and buffers of its own defaults, pictures are lost on a busy machine.
    os.environ.setdefault("CYCLONEDDS_URI", SAME_WIRE)

    @pytest.fixture(autouse=True)
    def domains_are_left() -> Iterator[None]:
        """A node of rclpy stays in its domain until somebody looks for garbage."""
        yield
        gc.collect()


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell script that runs these tests in the background has them, and all that they start,
    # ignore what some of the tests send.
    signal.signal(signal.SIGINT, signal.default_int_handler)
