"""`rclpy`: start, spin, stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from fastvla_ros.embedded.rcl import utilities
from fastvla_ros.embedded.rcl.context import Context
from fastvla_ros.embedded.rcl.executors import Executor, SingleThreadedExecutor
from fastvla_ros.embedded.rcl.logging import logging_state
from fastvla_ros.embedded.rcl.node import Node
from fastvla_ros.embedded.rcl.signals import SignalHandlerOptions, signal_handlers
from fastvla_ros.embedded.rcl.task import Future
from fastvla_ros.embedded.rcl.utilities import get_default_context as get_default_context
from fastvla_ros.embedded.rcl.utilities import (
    get_rmw_implementation_identifier as get_rmw_implementation_identifier,
)
from fastvla_ros.embedded.rcl.utilities import ok as ok

__all__ = [
    "Context",
    "Future",
    "Node",
    "SignalHandlerOptions",
    "create_node",
    "get_default_context",
    "get_global_executor",
    "init",
    "ok",
    "shutdown",
    "spin",
    "spin_once",
    "spin_until_future_complete",
    "try_shutdown",
]


def init(
    *,
    args: Sequence[str] | None = None,
    context: Context | None = None,
    domain_id: int | None = None,
    signal_handler_options: SignalHandlerOptions | None = None,
) -> None:
    """Join the domain; must be called once before nodes are made.

    Args:
        args: The command line; None is `sys.argv`.
        domain_id: None is ROS_DOMAIN_ID.
        signal_handler_options: None is ALL for the default context and NO for others.
    """
    chosen = get_default_context() if context is None else context
    is_default = chosen is get_default_context()
    chosen.init(args, domain_id=domain_id)
    arguments = chosen.arguments
    logging_state().configure(arguments.log_levels, stdout=arguments.stdout)
    if signal_handler_options is None:
        signal_handler_options = SignalHandlerOptions.ALL if is_default else SignalHandlerOptions.NO
    if signal_handler_options != SignalHandlerOptions.NO:
        signal_handlers().watch(chosen)
        signal_handlers().install(signal_handler_options)


@cache
def _global_executors() -> list[Executor]:
    return []


def get_global_executor() -> Executor:
    """The executor of `spin` and its siblings."""
    executors = _global_executors()
    if not executors or executors[0]._is_shutdown or not executors[0].context.ok():
        executors[:] = [SingleThreadedExecutor()]
    return executors[0]


def shutdown(*, context: Context | None = None, uninstall_handlers: bool | None = None) -> None:
    """End the context; RuntimeError when it is not initialised.

    Args:
        uninstall_handlers: None means yes for the default context.
    """
    utilities.shutdown(context=context)
    _after_shutdown(context, uninstall_handlers)


def try_shutdown(*, context: Context | None = None, uninstall_handlers: bool | None = None) -> None:
    """End the context if that has not been done."""
    utilities.try_shutdown(context=context)
    _after_shutdown(context, uninstall_handlers)


def _after_shutdown(context: Context | None, uninstall_handlers: bool | None) -> None:
    if context is None:
        for executor in _global_executors():
            executor.shutdown()
        _global_executors().clear()
    if uninstall_handlers or (uninstall_handlers is None and context is None):
        signal_handlers().uninstall()


def create_node(node_name: str, **kwargs: Any) -> Node:
    """A node; the arguments are those of `Node`."""
    return Node(node_name, **kwargs)


def spin(node: Node, executor: Executor | None = None) -> None:
    """Run the node's callbacks until shutdown."""

    def run(chosen: Executor) -> None:
        while chosen.context.ok() and not chosen._is_shutdown:
            chosen.spin_once()

    _with_node(node, executor, run)


def spin_once(
    node: Node, *, executor: Executor | None = None, timeout_sec: float | None = None
) -> None:
    """Wait for one callback of the node and run it."""
    _with_node(node, executor, lambda chosen: chosen.spin_once(timeout_sec))


def spin_until_future_complete(
    node: Node,
    future: Future[Any],
    executor: Executor | None = None,
    timeout_sec: float | None = None,
) -> None:
    """Run the node's callbacks until the future is done or the time is over."""

    chosen = get_global_executor() if executor is None else executor
    # An executor that has the node already keeps it.
    added = chosen.add_node(node)
    try:
        chosen.spin_until_future_complete(future, timeout_sec)
    finally:
        if added:
            chosen.remove_node(node)


def _with_node(node: Node, executor: Executor | None, run: Callable[[Executor], None]) -> None:
    chosen = get_global_executor() if executor is None else executor
    chosen.add_node(node)
    try:
        run(chosen)
    finally:
        chosen.remove_node(node)
