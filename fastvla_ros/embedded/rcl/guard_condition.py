"""A callback that any thread can ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup
from fastvla_ros.embedded.rcl.entity import Entity, Work

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node


class GuardCondition(Entity):
    """Runs its callback in the executor once after `trigger`."""

    def __init__(
        self, callback: Callable[[], Any], callback_group: CallbackGroup, *, node: Node
    ) -> None:
        super().__init__(node, callback_group)
        self.callback = callback
        self._triggered = False

    def trigger(self) -> None:
        """Ask for the callback."""
        self._triggered = True
        self.wake()

    def ready(self) -> bool:
        return self._triggered

    def take(self) -> Work | None:
        if not self._triggered:
            return None
        self._triggered = False
        return self.callback

    def destroy(self) -> None:
        """Forget a pending trigger."""
        self._triggered = False
