"""One message, without an executor."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from fastvla_ros.embedded.rcl.qos import QoSProfile, as_profile
from fastvla_ros.embedded.rcl.subscription import Subscription
from fastvla_ros.embedded.wire.deadlines import deadline, remaining

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node


class AwaitedSubscription(Subscription[Any]):
    """Wakes the thread that waits for a message instead of an executor."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.woken = threading.Event()
        super().__init__(*args, **kwargs)

    def wake(self) -> None:
        self.woken.set()


def wait_for_message(
    msg_type: type[Any],
    node: Node,
    topic: str,
    *,
    qos_profile: QoSProfile | int = 1,
    time_to_wait: float = -1,
) -> tuple[bool, Any]:
    """Wait for the next message of a topic; nobody needs to spin the node.

    Args:
        time_to_wait: Seconds; a negative number waits for ever.
    Returns:
        Whether there was one, and the message; (False, None) when the time is over or the
        context ends.
    """
    messages: list[Any] = []
    subscription = AwaitedSubscription(
        node,
        msg_type,
        node.resolve_topic_name(topic),
        messages.append,
        as_profile(qos_profile),
        callback_group=node.default_callback_group,
    )
    context, end = node.context, deadline(time_to_wait)
    context.add_waker(subscription.wake)
    try:
        while context.ok():
            work = subscription.take()
            if work is not None:
                work()
                return True, messages[0]
            if remaining(end) == 0:
                break
            subscription.woken.wait(remaining(end))
            subscription.woken.clear()
    finally:
        context.remove_waker(subscription.wake)
        subscription.destroy()
    return False, None
