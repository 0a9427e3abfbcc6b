"""What every storage of a bag gives: raw messages, topics, and the problems met on the way."""

from __future__ import annotations

from collections import Counter
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
class TypeDefinition:
    """How a bag defines a message type; `format` is `ros2msg` or `ros2idl`."""

    format: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRange:
    """Times of receipt from `start_ns` on, before `end_ns`."""

    start_ns: int = 0
    end_ns: int = 2**63 - 1

    def __contains__(self, stamp_ns: object) -> bool:
        return isinstance(stamp_ns, int) and self.start_ns <= stamp_ns < self.end_ns


EVER = TimeRange()


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

    @property
    def definitions(self) -> Mapping[str, TypeDefinition]:
        """The message types that it defines itself, by name."""
        ...

    @property
    def lost(self) -> Counter[str]:
        """Topic to number of messages that are known to be there and could not be read so far."""
        ...

    def messages(
        self, topics: Collection[str] | None = None, *, during: TimeRange = EVER
    ) -> Iterator[RawMessage]:
        """Messages in order of receipt, of those topics and that time only."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


def full_type_name(name: str) -> str:
    """`sensor_msgs/Image`, as the first ROS 2 releases wrote it, to `sensor_msgs/msg/Image`."""
    parts = name.split("/")
    return f"{parts[0]}/msg/{parts[1]}" if len(parts) == 2 else name
