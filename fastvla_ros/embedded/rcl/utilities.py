"""The default context and small helpers."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from functools import cache

from fastvla_ros.embedded.rcl.arguments import strip_ros_arguments
from fastvla_ros.embedded.rcl.constants import S_TO_NS
from fastvla_ros.embedded.rcl.context import Context


@cache
def _default_contexts() -> tuple[threading.Lock, list[Context]]:
    return threading.Lock(), [Context()]


def get_default_context(*, shutting_down: bool = False) -> Context:
    """The context of `rclpy.init()`; a new one once the former was shut down and closed."""
    lock, slot = _default_contexts()
    with lock:
        if shutting_down:
            slot[0], ended = Context(), slot[0]
            return ended
        return slot[0]


def ok(*, context: Context | None = None) -> bool:
    """Whether the (default) context is initialised and not shut down."""
    return (context if context is not None else get_default_context()).ok()


def shutdown(*, context: Context | None = None) -> None:
    """End the context; RuntimeError when it is not initialised."""
    _ending(context).shutdown()


def try_shutdown(*, context: Context | None = None) -> None:
    """End the context if that has not been done."""
    _ending(context).try_shutdown()


def _ending(context: Context | None) -> Context:
    return get_default_context(shutting_down=True) if context is None else context


def remove_ros_args(args: Sequence[str] | None = None) -> list[str]:
    """The command line without `--ros-args` and what belongs to it."""
    return strip_ros_arguments(sys.argv if args is None else args)


def get_rmw_implementation_identifier() -> str:
    """What speaks on the wire, in rmw's words."""
    return "rmw_cyclonedds_cpp"


def timeout_sec_to_nsec(timeout_sec: float | None) -> int:
    """Seconds to nanoseconds; None and negative numbers mean forever (-1)."""
    if timeout_sec is None or timeout_sec < 0:
        return -1
    return int(float(timeout_sec) * S_TO_NS)


def available_threads() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0))
