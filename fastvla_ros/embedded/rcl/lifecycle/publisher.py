"""Publishers that are silent while their node is inactive."""

from __future__ import annotations

from typing import Any

from fastvla_ros.embedded.rcl.lifecycle.managed_entity import SimpleManagedEntity
from fastvla_ros.embedded.rcl.publisher import Publisher


class LifecyclePublisher(SimpleManagedEntity, Publisher[Any]):
    """Publishes only while active."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        SimpleManagedEntity.__init__(self)
        Publisher.__init__(self, *args, **kwargs)

    def publish(self, msg: Any) -> None:
        """Send the message if active."""
        if self._enabled:
            Publisher.publish(self, msg)
