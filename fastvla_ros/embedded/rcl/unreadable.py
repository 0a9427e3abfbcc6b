"""Bytes from the network that are no message of their type: told and dropped, as rmw does."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from fastvla_core.errors import MessageError
from fastvla_ros.embedded.wire.messages import Message, deserialize

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node

M = TypeVar("M", bound=Message)
_TELL_PERIOD_S = 5.0


def read_or_tell(
    data: memoryview, kind: type[M], *, owner: Node, where: str, skip: int = 0
) -> M | None:
    """The message that the bytes are; None, and a warning in the node's log, when they are none.

    Anybody on the network can send such bytes, so they must not end the node that gets them.

    Args:
        where: The topic or service, for the warning.
        skip: Bytes of the body before the fields (a service header).
    """
    try:
        return deserialize(data, kind, skip=skip)
    except MessageError as error:
        owner.get_logger().warning(
            f"'{where}': {len(data)} bytes were dropped: {error}",
            throttle_duration_sec=_TELL_PERIOD_S,
        )
        return None
