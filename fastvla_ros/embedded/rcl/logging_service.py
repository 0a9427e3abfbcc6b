"""Lets others see and set a node's log levels: `~/get_logger_levels`, `~/set_logger_levels`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import LoggerLevel, SetLoggerLevelsResult
from rcl_interfaces.srv import GetLoggerLevels, SetLoggerLevels

from fastvla_ros.embedded.rcl.logging import get_logger_level, set_logger_level

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node


class LoggingService:
    """The two services; a level of 0 is one that was never set."""

    def __init__(self, node: Node) -> None:
        node.create_service(GetLoggerLevels, "~/get_logger_levels", self._get)
        node.create_service(SetLoggerLevels, "~/set_logger_levels", self._set)

    def _get(self, request: Any, response: Any) -> Any:
        response.levels = [
            LoggerLevel(name=name, level=int(get_logger_level(name))) for name in request.names
        ]
        return response

    def _set(self, request: Any, response: Any) -> Any:
        for level in request.levels:
            result = SetLoggerLevelsResult(successful=True)
            try:
                set_logger_level(level.name, level.level)
            except ValueError:
                result.successful = False
                result.reason = "Failed reason: Invalid logger level."
            response.results.append(result)
        return response
