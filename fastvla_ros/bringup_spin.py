"""Nodes that share this process: made from their description, spun by one executor."""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from fastvla_ros.bringup_description import NodeSpec, ros_arguments
from fastvla_ros.runtime import ensure_ros

# Blocking callbacks (goals, gripper moves) must never starve timers and sensors.
EXECUTOR_THREADS = 8
_SWITCH_S = 0.001
# More is no chance meeting.
_LOST_IN_A_ROW = 100


class SharedProcess:
    """One executor in a background thread for the nodes of this process; a context manager.

    Args:
        args: Command line with `--ros-args`; None takes the process's own.

    """

    def __init__(self, *, domain_id: int | None = None, args: Sequence[str] | None = ()) -> None:
        self._domain_id = domain_id
        self._args = None if args is None else list(args)
        self._nodes: list[Any] = []
        self._stopping = False
        self._failure: BaseException | None = None

    def __enter__(self) -> SharedProcess:
        ensure_ros()
        # A control tick must not stand behind other threads of Python for 5 ms each.
        sys.setswitchinterval(_SWITCH_S)
        import rclpy
        from rclpy.executors import MultiThreadedExecutor
        from rclpy.signals import SignalHandlerOptions

        # Ctrl-C must reach the goal that runs before it takes the graph down.
        rclpy.init(
            args=self._args,
            domain_id=self._domain_id,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self._rclpy = rclpy
        self._executor = MultiThreadedExecutor(num_threads=EXECUTOR_THREADS)
        self._thread = threading.Thread(target=self._spin, name="executor", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # In reverse: what came up last depends on what came up first. Goals end and the robot holds
        # while everything still spins; what a callback may be using is destroyed after that.
        for node in reversed(self._nodes):
            if hasattr(node, "prepare_shutdown"):
                node.prepare_shutdown()
        self._stop_spinning()
        for node in reversed(self._nodes):
            node.destroy_node()
        self._rclpy.try_shutdown()

    @property
    def failure(self) -> BaseException | None:
        """What ended the executor or a node's own thread against its will, or None."""
        own = (getattr(node, "failure", None) for node in self._nodes)
        return self._failure or next((error for error in own if error is not None), None)

    def add(self, node: Any) -> Any:
        """Spin a node; it is destroyed with the process."""
        self._nodes.append(node)
        self._executor.add_node(node)
        return node

    def start(
        self,
        spec: NodeSpec,
        *,
        namespace: str = "",
        params_file: str = "",
        log_level: str = "",
    ) -> Any:
        """Make the node of a description and spin it."""
        node_class = getattr(importlib.import_module(spec.module), spec.class_name)
        arguments = ros_arguments(
            spec, namespace=namespace, params_file=params_file, log_level=log_level
        )
        return self.add(node_class(cli_args=arguments, use_global_arguments=False))

    def _stop_spinning(self) -> None:
        # rclpy's `shutdown` takes away what a spinning thread waits for, and leaves the pool's
        # callbacks running: end both first.
        self._stopping = True
        # Work for one `spin_once`: a mere `wake` leaves rclpy waiting where nothing is due.
        self._executor.create_task(lambda: None)
        self._thread.join(timeout=5.0)
        pool = getattr(self._executor, "_executor", None)
        if pool is not None:
            pool.shutdown(wait=True)
        self._executor.shutdown(timeout_sec=5.0)

    def _spin(self) -> None:
        from rclpy.executors import ExternalShutdownException

        lost = 0
        try:
            while not self._stopping:
                try:
                    self._executor.spin_once()
                    lost = 0
                except RuntimeError as error:
                    lost += 1
                    if lost > _LOST_IN_A_ROW or not _came_from_looking(error):
                        raise
        except ExternalShutdownException:
            return
        # The main thread looks at it and ends the program with a message.
        except BaseException as error:
            self._failure = error


def _came_from_looking(error: BaseException) -> bool:
    """Whether rclpy's executor met an entity that another thread was just destroying.

    It asks timers and clients whether they are ready, and waits for action clients, without minding
    that they may be gone (InvalidHandle, RCLError): a server that is deactivated, and so destroys
    its timer, would take every node here with it.
    """
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_name == "_wait_for_ready_callbacks" for frame, _ in frames)


@contextlib.contextmanager
def spinning_node(name: str, *, namespace: str = "", ros_args: Sequence[str] = ()) -> Iterator[Any]:
    """A plain node that is spun in the background while the block runs."""
    with SharedProcess() as process:
        from rclpy.node import Node

        yield process.add(
            Node(
                name,
                namespace=namespace or None,
                cli_args=list(ros_args),
                use_global_arguments=False,
                start_parameter_services=False,
            )
        )
