"""Small leaves: look at a condition, wait for one, wait a while, call a service."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from py_trees.behaviour import Behaviour
from py_trees.common import Status


class Check(Behaviour):
    """SUCCESS where `condition` holds now, else FAILURE."""

    def __init__(self, name: str, condition: Callable[[], bool]) -> None:
        super().__init__(name)
        self._condition = condition

    def update(self) -> Status:
        """Look."""
        return Status.SUCCESS if self._condition() else Status.FAILURE


class WaitUntil(Behaviour):
    """RUNNING until `condition` holds; FAILURE when it does not within `timeout_s`."""

    def __init__(self, name: str, condition: Callable[[], bool], *, timeout_s: float) -> None:
        super().__init__(name)
        self._condition, self._timeout_s = condition, timeout_s
        self._deadline_s = 0.0

    def initialise(self) -> None:
        """Begin to wait."""
        self._deadline_s = time.monotonic() + self._timeout_s

    def update(self) -> Status:
        """Look."""
        if self._condition():
            return Status.SUCCESS
        return Status.RUNNING if time.monotonic() < self._deadline_s else Status.FAILURE


class Wait(Behaviour):
    """RUNNING for as long as `duration_s` says when it is entered."""

    def __init__(self, name: str, duration_s: Callable[[], float]) -> None:
        super().__init__(name)
        self._duration_s = duration_s
        self._end_s = 0.0

    def initialise(self) -> None:
        """Begin to wait."""
        duration_s = self._duration_s()
        self._end_s = time.monotonic() + duration_s
        self.feedback_message = f"{duration_s:.1f} s"

    def update(self) -> Status:
        """Look at the time."""
        return Status.RUNNING if time.monotonic() < self._end_s else Status.SUCCESS


class Act(Behaviour):
    """Calls `action`, which must not wait, and gives back `then`."""

    def __init__(
        self, name: str, action: Callable[[], None], *, then: Status = Status.SUCCESS
    ) -> None:
        super().__init__(name)
        self._action, self._then = action, then

    def update(self) -> Status:
        """Do it."""
        self._action()
        return self._then


class CallService(Behaviour):
    """Calls a service; RUNNING until the answer is there, then SUCCESS where it is `accepted`.

    FAILURE, too, where nobody serves it or answers within `timeout_s`.

    Args:
        node: Spun by another thread.
        service: Its type, with `Request`.
        address: Its name on the graph.
        request: Makes the request, anew for each call.
    """

    def __init__(
        self,
        name: str,
        node: Any,
        service: Any,
        address: str,
        *,
        request: Callable[[], Any],
        accepted: Callable[[Any], bool],
        timeout_s: float = 5.0,
    ) -> None:
        super().__init__(name)
        self._client = node.create_client(service, address)
        self._request, self._accepted, self._timeout_s = request, accepted, timeout_s
        self._future: Any = None
        self._deadline_s = 0.0

    def initialise(self) -> None:
        """Forget an earlier call."""
        self._future, self._deadline_s = None, time.monotonic() + self._timeout_s

    def update(self) -> Status:
        """Call, or look for the answer."""
        if self._future is None and self._client.service_is_ready():
            self._future = self._client.call_async(self._request())
        if self._future is not None and self._future.done():
            good = self._accepted(self._future.result())
            return Status.SUCCESS if good else Status.FAILURE
        return Status.RUNNING if time.monotonic() < self._deadline_s else Status.FAILURE
