"""Loggers with rclpy's interface: to stderr, and to /rosout for the loggers of nodes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any


class LoggingSeverity(IntEnum):
    """Severities, numbered as in rcutils."""

    UNSET = 0
    DEBUG = 10
    INFO = 20
    WARN = 30
    ERROR = 40
    FATAL = 50


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One message and where in the code it comes from."""

    severity: LoggingSeverity
    stamp_ns: int
    name: str
    message: str
    file: str
    function: str
    line: int


Sink = Callable[[LogRecord], None]


class LoggingState:
    """Levels and sinks of a process, as ROS has them per process too."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.levels: dict[str, LoggingSeverity] = {"": LoggingSeverity.INFO}
        self.sinks: dict[str, Sink] = {}
        self.stdout = True
        # What each call site of a throttled, skipping or once-only message remembers.
        self.sites: dict[tuple[str, int], dict[str, float]] = {}

    def configure(self, levels: dict[str, str], *, stdout: bool) -> None:
        """Start as a command line says; a level without a name is that of all loggers."""
        self.stdout = stdout
        self.levels[""] = LoggingSeverity.INFO
        self.levels |= {name: severity_from_name(level) for name, level in levels.items()}

    def forget(self, name: str, sink: Sink | None) -> None:
        """Drop the sink and the level of a node that is gone, but not those of its twin."""
        if self.sinks.get(name) is sink:
            self.sinks.pop(name, None)
            self.levels.pop(name, None)

    def level(self, name: str) -> LoggingSeverity:
        """The level of the logger or of its nearest ancestor that has one."""
        for ancestor in ancestors(name):
            if ancestor in self.levels:
                return self.levels[ancestor]
        return LoggingSeverity.INFO

    def sink(self, name: str) -> Sink | None:
        """The /rosout sink of the logger's node."""
        found = (self.sinks.get(ancestor) for ancestor in ancestors(name))
        return next((sink for sink in found if sink is not None), None)


@cache
def logging_state() -> LoggingState:
    """The process's logging state."""
    return LoggingState()


def ancestors(name: str) -> list[str]:
    """`a.b.c` as a.b.c, a.b, a and the root."""
    parts = name.split(".") if name else []
    return [".".join(parts[:n]) for n in range(len(parts), -1, -1)]


def severity_from_name(name: str) -> LoggingSeverity:
    """The severity called, for example, "warn"; ValueError when there is none."""
    try:
        return LoggingSeverity[name.upper()]
    except KeyError:
        raise ValueError(f"'{name}' is not a log level") from None


class RcutilsLogger:
    """Logs under one name."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def get_child(self, name: str) -> RcutilsLogger:
        """The logger `self.name.name`."""
        if not name:
            raise ValueError("Need a non-empty name")
        return RcutilsLogger(f"{self.name}.{name}" if self.name else name)

    def set_level(self, level: LoggingSeverity | int) -> None:
        """Drop what is less severe."""
        logging_state().levels[self.name] = LoggingSeverity(level)

    def get_effective_level(self) -> LoggingSeverity:
        """The level in force."""
        return logging_state().level(self.name)

    def is_enabled_for(self, severity: LoggingSeverity | int) -> bool:
        """Whether such a message would be logged."""
        return severity >= self.get_effective_level()

    def debug(self, message: str, **kwargs: Any) -> bool:
        """Log; see `log` for the options."""
        return self.log(message, LoggingSeverity.DEBUG, _depth=2, **kwargs)

    def info(self, message: str, **kwargs: Any) -> bool:
        """Log; see `log` for the options."""
        return self.log(message, LoggingSeverity.INFO, _depth=2, **kwargs)

    def warning(self, message: str, **kwargs: Any) -> bool:
        """Log; see `log` for the options."""
        return self.log(message, LoggingSeverity.WARN, _depth=2, **kwargs)

    warn = warning

    def error(self, message: str, **kwargs: Any) -> bool:
        """Log; see `log` for the options."""
        return self.log(message, LoggingSeverity.ERROR, _depth=2, **kwargs)

    def fatal(self, message: str, **kwargs: Any) -> bool:
        """Log; see `log` for the options."""
        return self.log(message, LoggingSeverity.FATAL, _depth=2, **kwargs)

    def log(
        self,
        message: str,
        severity: LoggingSeverity,
        *,
        name: str | None = None,
        throttle_duration_sec: float | None = None,
        throttle_time_source_type: Any = None,
        skip_first: bool = False,
        once: bool = False,
        _depth: int = 1,
    ) -> bool:
        """Log unless the level or the call site's options forbid it; whether it was logged.

        Args:
            throttle_duration_sec: At most one message per this time from this line of code.
            throttle_time_source_type: A clock to measure that by; None is the monotonic clock.
            skip_first: Not the first time.
            once: Only the first time.
        """
        logger = self.name if name is None else name
        state = logging_state()
        if severity < state.level(logger):
            return False
        frame = sys._getframe(_depth)
        site = (frame.f_code.co_filename, frame.f_lineno)
        with state.lock:
            memory = state.sites.setdefault(site, {})
            clock = throttle_time_source_type
            now_s = time.monotonic() if clock is None else clock.now().nanoseconds / 1e9
            allowed = _allowed(memory, now_s, throttle_duration_sec, skip_first, once)
        if allowed:
            stamp_ns, function = time.time_ns(), frame.f_code.co_name
            _emit(
                LogRecord(
                    LoggingSeverity(severity),
                    stamp_ns,
                    logger,
                    str(message),
                    file=site[0],
                    function=function,
                    line=site[1],
                )
            )
        return allowed


def _allowed(
    memory: dict[str, float], now_s: float, period_s: float | None, skip_first: bool, once: bool
) -> bool:
    first = "seen" not in memory
    memory["seen"] = 1
    if once and not first:
        return False
    if period_s is not None:
        if "last" in memory and now_s - memory["last"] < period_s:
            return False
        memory["last"] = now_s
    return not (skip_first and first)


def _emit(record: LogRecord) -> None:
    state = logging_state()
    if state.stdout:
        seconds, rest = divmod(record.stamp_ns, 1_000_000_000)
        sys.stderr.write(
            f"[{record.severity.name}] [{seconds}.{rest:09d}] [{record.name}]: {record.message}\n"
        )
        sys.stderr.flush()
    sink = state.sink(record.name)
    if sink is not None:
        sink(record)


def get_logger(name: str) -> RcutilsLogger:
    """The logger of that name.

    Raises:
        ValueError: the name is empty.
    """
    if not name:
        raise ValueError("Logger name must not be empty.")
    return RcutilsLogger(name)


def get_logger_effective_level(name: str) -> LoggingSeverity:
    """The level in force for a logger."""
    return logging_state().level(name)


def get_logger_level(name: str) -> LoggingSeverity:
    """The level that was set for this very logger; UNSET when none was."""
    return logging_state().levels.get(name, LoggingSeverity.UNSET)


def set_logger_level(name: str, level: LoggingSeverity | int) -> None:
    """Set the level of a logger and of its children that have none; ValueError for no level."""
    logging_state().levels[name] = LoggingSeverity(level)


def get_logging_severity_from_string(log_severity: str) -> LoggingSeverity:
    """The severity of that name; RuntimeError when there is none."""
    try:
        return severity_from_name(log_severity)
    except ValueError as error:
        raise RuntimeError(str(error)) from None
