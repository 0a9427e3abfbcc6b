"""CDR bytes of messages."""

from __future__ import annotations

from typing import Any

from fastvla_ros.embedded.wire.messages import deserialize, serialize


def serialize_message(message: Any) -> bytes:
    """The message with its encapsulation header."""
    return bytes(serialize(message))


def deserialize_message(serialized_message: bytes, message_type: type[Any]) -> Any:
    """The message of the bytes."""
    return deserialize(serialized_message, message_type)
