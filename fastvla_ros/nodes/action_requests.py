"""Action clients that no answer escapes."""

from __future__ import annotations

import threading
from typing import Any

from rclpy.action import ActionClient

__all__ = ["action_client"]


def action_client(*args: Any, **kwargs: Any) -> ActionClient:
    """rclpy's `ActionClient`, which several threads may use at once.

    rclpy (Jazzy) sends a request and then notes that it did. On a busy machine another thread of
    the executor takes the answer in between, finds nobody who waits for it, and throws it away: a
    goal runs that its sender believes lost.
    """
    # The embedded runtime's notes first, and has no such method.
    kind = _Noting if hasattr(ActionClient, "execute") else ActionClient
    return kind(*args, **kwargs)


class _Noting(ActionClient):
    """Looks at no answer before every request that was sent is noted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._sending = threading.Lock()
        super().__init__(*args, **kwargs)

    def send_goal_async(self, *args: Any, **kwargs: Any) -> Any:
        with self._sending:
            return super().send_goal_async(*args, **kwargs)

    # The handles of goals ask by these names.
    def _cancel_goal_async(self, *args: Any, **kwargs: Any) -> Any:
        with self._sending:
            return super()._cancel_goal_async(*args, **kwargs)

    def _get_result_async(self, *args: Any, **kwargs: Any) -> Any:
        with self._sending:
            return super()._get_result_async(*args, **kwargs)

    async def execute(self, taken_data: Any) -> Any:
        # Whatever was taken answers a request that was under way by then.
        with self._sending:
            pass
        parent: Any = super()
        return await parent.execute(taken_data)
