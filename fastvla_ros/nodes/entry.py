"""What every node's executable does: make the node, spin, end with one clear message."""

from __future__ import annotations

import gc
import importlib
import signal
import sys
from collections.abc import Sequence

from fastvla_core.errors import FastVLAError, RosError
from fastvla_core.signal_flag import SignalFlag
from fastvla_ros.bringup_spin import SharedProcess

_WATCH_PERIOD_S = 0.2


def run_node(module: str, class_name: str, *, args: Sequence[str] | None = None) -> int:
    """Spin one node until SIGINT or SIGTERM; returns the exit status.

    The executor spins on while the node is destroyed, so that a running goal still gets its
    result and the robot its last command.

    Args:
        module, class_name: Where the node class is; imported after ROS is in place.
        args: Command line with `--ros-args`; by default the process's own.
    """
    interrupted = SignalFlag()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    try:
        with SharedProcess(args=args) as process:
            process.add(getattr(importlib.import_module(module), class_name)())
            # What every node needs stays: searching it for garbage would hold up the node.
            gc.collect()
            gc.freeze()
            while not interrupted.wait(_WATCH_PERIOD_S):
                failure = process.failure
                if isinstance(failure, FastVLAError):
                    raise failure
                if failure is not None:
                    raise RosError(
                        f"{type(failure).__name__}: {failure}",
                        mend="this is a defect, please report it",
                    ) from failure
    except FastVLAError as error:
        print(f"{class_name}: {error}", file=sys.stderr)
        return 1
    return 0
