"""Starts a description of nodes without `ros2 launch`, and stops them together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastvla_core.errors import FastVLAError, RosError
from fastvla_ros.bringup_description import (
    BringupOptions,
    NodeSpec,
    describe,
    ros_arguments,
    separate,
    shared,
)
from fastvla_ros.bringup_spin import SharedProcess

# The black box may still have half a gigabyte to write.
_STOP_TIMEOUT_S = 10.0
_WATCH_PERIOD_S = 0.2


class NodeProcess:
    """A node in a process of its own; a context manager that stops it."""

    def __init__(self, spec: NodeSpec, *, options: BringupOptions) -> None:
        self.name, self._optional = spec.name, spec.optional
        self._told = False
        command = [sys.executable, "-m", "fastvla_ros.bringup_child", str(os.getpid())]
        command += [spec.executable, *_arguments(spec, options)]
        # A group of its own: Ctrl-C reaches this process alone, which then stops the guard last.
        self._process = subprocess.Popen(command, start_new_session=True, env=_environment())

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def check(self) -> None:
        """See that the process lives; the end of one that is optional is told once.

        Raises:
            RosError: it has ended.
        """
        status = self._process.poll()
        if status is None or self._told:
            return
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        ended = f"node '{self.name}' ended unexpectedly ({how})"
        if not self._optional:
            raise RosError(
                f"{ended}; everything was stopped",
                mend="its last messages above say why; nothing is restarted by itself",
            )
        print(f"warning: {ended}; the others go on without it", file=sys.stderr)
        self._told = True

    def stop(self) -> None:
        """Interrupt the process, and kill it when it does not end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()


class Bringup:
    """A running description of nodes.

    Attributes:
        process: The nodes that share this process.
        nodes: These nodes, by name.
        children: The nodes in processes of their own.
    """

    def __init__(self, process: SharedProcess, children: Sequence[NodeProcess]) -> None:
        self.process = process
        self.nodes: dict[str, Any] = {}
        self.children = children

    def check(self) -> None:
        """See that everything runs.

        Raises:
            RosError: a process ended, or the executor of this one did.
        FastVLAError: what a node itself says has ended it.
        """
        for child in self.children:
            child.check()
        failure = self.process.failure
        if isinstance(failure, FastVLAError):
            raise failure
        if failure is not None:
            raise RosError(
                f"a node failed: {type(failure).__name__}: {failure}",
                mend="everything was stopped; this is a defect, please report it",
            ) from failure

    def wait(self, *, until: Callable[[], bool]) -> None:
        """Watch over the nodes until `until` says so.

        Raises:
            RosError: as `check`.
        """
        while not until():
            self.check()
            time.sleep(_WATCH_PERIOD_S)


@contextlib.contextmanager
def running(
    options: BringupOptions, *, specs: Sequence[NodeSpec] | None = None
) -> Iterator[Bringup]:
    """Bring every node up, and stop them together at the end of the block.

    Args:
        specs: Other nodes than those that `describe` gives for the options.

    Raises:
        FastVLAError: a node could not be made.
    """
    specs = describe(options) if specs is None else specs
    with contextlib.ExitStack() as stack:
        # The guard outlives the others, so that it still holds the robot when they are gone.
        children = [
            stack.enter_context(NodeProcess(spec, options=options)) for spec in separate(specs)
        ]
        # rclpy takes the level of a process from here, the embedded runtime that of each node.
        levels = ["--ros-args", "--log-level", options.log_level]
        bringup = Bringup(stack.enter_context(SharedProcess(args=levels)), children)
        for spec in shared(specs):
            bringup.nodes[spec.name] = bringup.process.start(
                spec,
                namespace=options.namespace,
                params_file=options.params_file,
                log_level=options.log_level,
            )
            bringup.check()
        yield bringup


def _arguments(spec: NodeSpec, options: BringupOptions) -> list[str]:
    return ros_arguments(
        spec,
        namespace=options.namespace,
        params_file=options.params_file,
        log_level=options.log_level,
    )


def _environment() -> dict[str, str]:
    # The child finds the same installation, wherever this process was started from.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path}
