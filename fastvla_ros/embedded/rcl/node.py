"""Nodes: names, parameters, a clock, a logger, and everything that has callbacks."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from builtin_interfaces.msg import Time as TimeMsg
from rcl_interfaces.msg import Log, ParameterEvent

from fastvla_ros.embedded.rcl import _rclpy_pybind11 as _rclpy
from fastvla_ros.embedded.rcl import names
from fastvla_ros.embedded.rcl.arguments import parse_arguments
from fastvla_ros.embedded.rcl.clock import Clock, ROSClock
from fastvla_ros.embedded.rcl.context import Context
from fastvla_ros.embedded.rcl.event_handler import EventHandler
from fastvla_ros.embedded.rcl.exceptions import NotInitializedException
from fastvla_ros.embedded.rcl.logging import (
    LogRecord,
    RcutilsLogger,
    Sink,
    get_logger,
    logging_state,
    severity_from_name,
)
from fastvla_ros.embedded.rcl.logging_service import LoggingService
from fastvla_ros.embedded.rcl.node_entities import NS, NodeEntities
from fastvla_ros.embedded.rcl.node_graph import NodeGraph
from fastvla_ros.embedded.rcl.node_parameter_api import NodeParameterApi
from fastvla_ros.embedded.rcl.node_parameters import NodeParameters
from fastvla_ros.embedded.rcl.parameter import Parameter
from fastvla_ros.embedded.rcl.parameter_overrides import overrides_for
from fastvla_ros.embedded.rcl.parameter_service import ParameterService
from fastvla_ros.embedded.rcl.qos import (
    qos_profile_parameter_events,
    qos_profile_rosout_default,
)
from fastvla_ros.embedded.rcl.time_source import TimeSource
from fastvla_ros.embedded.rcl.utilities import get_default_context
from fastvla_ros.embedded.wire.graph import LocalNode

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.executors import Executor


NodeNameNonExistentError = _rclpy.NodeNameNonExistentError


class Node(NodeEntities, NodeParameterApi, NodeGraph):
    """A participant in the ROS graph."""

    def __init__(
        self,
        node_name: str,
        *,
        context: Context | None = None,
        cli_args: Sequence[str] | None = None,
        namespace: str | None = None,
        use_global_arguments: bool = True,
        enable_rosout: bool = True,
        start_parameter_services: bool = True,
        parameter_overrides: Sequence[Parameter] | None = None,
        allow_undeclared_parameters: bool = False,
        automatically_declare_parameters_from_overrides: bool = False,
        enable_logger_service: bool = False,
    ) -> None:
        """Join the graph.

        Args:
            cli_args: More `--ros-args`, stronger than those of the process.
            parameter_overrides: Stronger than every command line.
            enable_logger_service: Let others see and set log levels.
        Raises:
            NotInitializedException: the context is not initialised.
            InvalidNodeNameException, InvalidNamespaceException: the names break the rules.
        """
        self._context = context if context is not None else get_default_context()
        if not self._context.ok():
            raise NotInitializedException("cannot create node")
        own = parse_arguments(cli_args or [])
        process = self._context.arguments if use_global_arguments else parse_arguments([])
        self._remaps = (*own.remaps, *process.remaps)
        self._name, self._namespace = self._chosen_names(node_name, namespace or "/")
        full_name = self.get_fully_qualified_name()
        overrides = overrides_for(process.parameters, full_name)
        overrides |= overrides_for(own.parameters, full_name)
        overrides |= {p.name: p.value for p in parameter_overrides or []}
        self._start_empty()
        self._executor: weakref.ref[Executor] | None = None
        self._destroyed = False
        self._rosout: Sink | None = None
        self._clock: ROSClock = ROSClock()
        self._logger = get_logger(self._logger_name())
        self._context.node_created()
        twins = EventHandler(self, self.default_callback_group, self._report_twin)
        self.add_entity(twins)
        self.graph_entry = LocalNode(self._namespace, self._name, lambda: twins.push(None))
        known = self.get_fully_qualified_node_names()
        self._context.graph.add_node(self.graph_entry)
        if full_name in known:
            self._report_twin()
        try:
            self._open_rosout(enabled=enable_rosout and process.rosout)
            self._set_log_levels(own.log_levels)
            self._open_parameters(overrides, allow_undeclared=allow_undeclared_parameters)
            if automatically_declare_parameters_from_overrides:
                for name, value in overrides.items():
                    self.declare_parameter(name, value)
            self._time_source = TimeSource(self, self._clock)
            if start_parameter_services:
                ParameterService(self, self._parameters)
            if enable_logger_service:
                LoggingService(self)
        except BaseException:
            self.destroy_node()
            raise

    def get_name(self) -> str:
        """The name without the namespace."""
        return self._name

    def get_namespace(self) -> str:
        """The namespace, `/` when there is none."""
        return self._namespace

    def get_fully_qualified_name(self) -> str:
        """Namespace and name."""
        return names.full_node_name(self._namespace, self._name)

    def resolve_topic_name(self, topic: str, *, only_expand: bool = False) -> str:
        """The absolute, remapped name of a topic."""
        return self._resolve(topic, is_service=False, only_expand=only_expand)

    def resolve_service_name(self, service: str, *, only_expand: bool = False) -> str:
        """The absolute, remapped name of a service."""
        return self._resolve(service, is_service=True, only_expand=only_expand)

    @property
    def context(self) -> Context:
        """The context that the node lives in."""
        return self._context

    @property
    def executor(self) -> Executor | None:
        """The executor that runs the node's callbacks."""
        return None if self._executor is None else self._executor()

    @executor.setter
    def executor(self, new_executor: Executor | None) -> None:
        current = self.executor
        if current is new_executor:
            return
        self._executor = None if new_executor is None else weakref.ref(new_executor)
        if current is not None:
            current.remove_node(self)
        if new_executor is not None:
            new_executor.add_node(self)

    def get_clock(self) -> Clock:
        """ROS time: the system's, or that of /clock with `use_sim_time`."""
        return self._clock

    def get_logger(self) -> RcutilsLogger:
        """The logger named after the node."""
        return self._logger

    def destroy_node(self) -> None:
        """Leave the graph; a second call does nothing."""
        if self._destroyed:
            return
        self._destroyed = True
        self.executor = None
        logging_state().forget(self._logger.name, self._rosout)
        self._destroy_entities()
        self._context.graph.remove_node(self.graph_entry)
        self._context.node_destroyed()

    def wake_executor(self) -> None:
        """Make the executor look for work again."""
        executor = self.executor
        if executor is not None:
            executor.wake()

    def announce(self) -> None:
        """Tell the graph that an endpoint came or went."""
        if not self._destroyed:
            self._context.graph.announce()

    def _left_executor(self, executor: Executor) -> None:
        if self.executor is executor:
            self._executor = None

    def _report_twin(self, _event: None = None) -> None:
        self._logger.warning(
            f"Another node is named '{self.get_fully_qualified_name()}' too: nobody can tell "
            "their parameters, services and logs apart\n  to mend: start one of them with "
            "`--ros-args -r __node:=OTHER_NAME` (one that was killed stays for 10 s)"
        )

    def _chosen_names(self, name: str, namespace: str) -> tuple[str, str]:
        absolute = namespace if namespace.startswith("/") else f"/{namespace}"
        names.validate_node_name(name)
        names.validate_namespace(absolute)
        name, absolute = names.remap_node(name, absolute, self._remaps)
        return name, absolute

    def _resolve(self, name: str, *, is_service: bool, only_expand: bool) -> str:
        where = {"node": self._name, "namespace": self._namespace, "is_service": is_service}
        expanded = names.expand_name(name, **where)
        return expanded if only_expand else names.remap_name(expanded, self._remaps, **where)

    def _logger_name(self) -> str:
        return self.get_fully_qualified_name().strip("/").replace("/", ".")

    def _set_log_levels(self, levels: dict[str, str]) -> None:
        """A level without a logger's name is meant for this node's, not for the process."""
        for logger, level in levels.items():
            logging_state().levels[logger or self._logger.name] = severity_from_name(level)

    def _open_rosout(self, *, enabled: bool) -> None:
        if not enabled:
            return
        publisher = self.create_publisher(Log, "/rosout", qos_profile_rosout_default)

        def publish(record: LogRecord) -> None:
            if self._context.ok():
                stamp = TimeMsg(sec=record.stamp_ns // NS, nanosec=record.stamp_ns % NS)
                level = int(record.severity)
                log = Log(stamp=stamp, level=level, name=record.name, msg=record.message)
                log.file, log.function, log.line = record.file, record.function, record.line
                publisher.publish(log)

        self._rosout = publish
        logging_state().sinks[self._logger.name] = publish

    def _open_parameters(self, overrides: dict[str, Any], *, allow_undeclared: bool) -> None:
        publisher = self.create_publisher(
            ParameterEvent, "/parameter_events", qos_profile_parameter_events
        )

        def publish(event: ParameterEvent) -> None:
            event.node = self.get_fully_qualified_name()
            event.stamp = self._clock.now().to_msg()
            publisher.publish(event)

        self._parameters = NodeParameters(
            overrides, allow_undeclared=allow_undeclared, publish=publish
        )
