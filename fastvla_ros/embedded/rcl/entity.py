"""What an executor needs from whatever has callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastvla_ros.embedded.rcl.callback_groups import CallbackGroup

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node

# Runs one callback; the result may be a coroutine.
Work = Callable[[], Any]


class Entity:
    """Base of timers, subscriptions, services, clients and guard conditions."""

    def __init__(self, node: Node | None, callback_group: CallbackGroup) -> None:
        self._node = node
        self.callback_group = callback_group
        callback_group.add_entity(self)

    def ready(self) -> bool:
        """Whether there is work now."""
        raise NotImplementedError

    def take(self) -> Work | None:
        """Claim one piece of work; None when somebody else was faster."""
        raise NotImplementedError

    def wake(self) -> None:
        """Make the node's executor look whether this is ready."""
        if self._node is not None:
            self._node.entity_woke(self)
