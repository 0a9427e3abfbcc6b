"""What every storage of a bag gives: raw messages, topics, and the problems met on the way."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class RawMessage(NamedTuple):
    """One message as it was stored; `stamp_ns` is the time of receipt, `data` its CDR bytes."""

    topic: str
    type: str
    stamp_ns: int
    data: bytes | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicInfo:
    """One topic of a bag; `count` as far as the index or a complete read tells."""

    name: str
    type: str
    count: int
    encoding: str = "cdr"


@dataclass(frozen=True, slots=True, kw_only=True)
class BagProblem:
    """Something wrong with a recording, what to do about it, and whether messages are lost."""

    message: str
    mend: str
    loses_data: bool


class Storage(Protocol):
    """One file of a bag."""

    @property
    def topics(self) -> list[TopicInfo]:
        """Its topics, one entry per connection."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the recorder wrote beside the messages."""
        ...

    def messages(self, topics: Collection[str] | None = None) -> Iterator[RawMessage]:
        """Messages in order of receipt, of those topics only."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


def full_type_name(name: str) -> str:
    """`sensor_msgs/Image`, as the first ROS 2 releases wrote it, to `sensor_msgs/msg/Image`."""
    parts = name.split("/")
    return f"{parts[0]}/msg/{parts[1]}" if len(parts) == 2 else name
