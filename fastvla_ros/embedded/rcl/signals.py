"""SIGINT and SIGTERM: shut contexts down, then do what Python did before."""

from __future__ import annotations

import signal
import threading
from enum import IntEnum
from functools import cache
from types import FrameType
from typing import Any

from fastvla_ros.embedded.rcl.context import Context


class SignalHandlerOptions(IntEnum):
    """Which signals end the contexts, numbered as in rclpy."""

    NO = 0
    SIGINT = 1
    SIGTERM = 2
    ALL = 3


class SignalHandlers:
    """The process's handlers; only the main thread can change them."""

    def __init__(self) -> None:
        self._contexts: list[Context] = []
        self._previous: dict[signal.Signals, Any] = {}

    def watch(self, context: Context) -> None:
        """Shut this context down too."""
        self._contexts = [c for c in self._contexts if c.ok()] + [context]

    def install(self, options: SignalHandlerOptions) -> None:
        """Handle the chosen signals; in another thread than the main one, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            return
        for chosen, number in (
            (SignalHandlerOptions.SIGINT, signal.SIGINT),
            (SignalHandlerOptions.SIGTERM, signal.SIGTERM),
        ):
            if options & chosen and number not in self._previous:
                self._previous[number] = signal.signal(number, self._handle)

    @property
    def options(self) -> SignalHandlerOptions:
        """Which signals are handled now."""
        flags = {
            signal.SIGINT: SignalHandlerOptions.SIGINT,
            signal.SIGTERM: SignalHandlerOptions.SIGTERM,
        }
        return SignalHandlerOptions(sum(flags[number] for number in self._previous))

    def uninstall(self) -> None:
        """Put the former handlers back."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, previous in self._previous.items():
            # Whoever came later keeps the signal.
            if signal.getsignal(number) == self._handle:
                signal.signal(number, previous)
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        contexts, self._contexts = self._contexts, []
        # The interrupted code may hold any lock, so the work is done in a thread.
        threading.Thread(target=_shut_down, args=(contexts,), name="rclpy-signal").start()
        previous = self._previous.get(signal.Signals(number))
        if callable(previous):
            previous(number, frame)


def _shut_down(contexts: list[Context]) -> None:
    for context in contexts:
        context.try_shutdown()


@cache
def signal_handlers() -> SignalHandlers:
    """The process's handlers."""
    return SignalHandlers()


def install_signal_handlers(options: SignalHandlerOptions = SignalHandlerOptions.ALL) -> None:
    """Handle the chosen signals."""
    signal_handlers().install(options)


def get_current_signal_handlers_options() -> SignalHandlerOptions:
    """Which signals are handled now."""
    return signal_handlers().options


def uninstall_signal_handlers() -> None:
    """Put the former handlers back."""
    signal_handlers().uninstall()
