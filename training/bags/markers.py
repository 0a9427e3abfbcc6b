"""Messages and service calls that mark where an episode begins or ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastvla_core.bags.writer import absolute
from fastvla_core.errors import BagError, MessageError
from training.bags.messages import STRING, TASK_OUTCOME
from training.bags.reader import Bag
from training.bags.task_topics import OUTCOMES

_BOOL, _EMPTY = "std_msgs/msg/Bool", "std_msgs/msg/Empty"
_EVENT = "/_service_event"
# ServiceEventInfo.event_type: what the client sent, and what the server received of it.
_REQUEST_SENT, _REQUEST_RECEIVED = 0, 1
_BEGIN = ("start", "begin", "record")
_END = ("stop", "end", "success", "failure")
_DISCARD = ("discard", "cancel", "abort")


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """One mark. A mark that begins an episode ends the one before.

    Attributes:
        discards: What was recorded since the mark before is not wanted.
        judges: It ends what was recorded since the mark before it, or since the start.
    """

    stamp_ns: int
    begins: bool = False
    ends: bool = False
    discards: bool = False
    judges: bool = False
    instruction: str | None = None
    outcome: str | None = None


def read_markers(bag: Bag, topic: str) -> Iterator[Marker]:
    """Every mark on a topic, or of a service whose introspection was recorded.

    std_msgs/Bool and std_srvs/SetBool: true begins, false ends. std_msgs/Empty and
    std_srvs/Trigger: begins the next. std_msgs/String: `start [INSTRUCTION]`, `stop`, `success`,
    `failure`, `discard`. fastvla_msgs/TaskOutcome: ends what was done since the one before it.

    Raises:
        BagError: the topic is not in the recording, or its type marks nothing.
    """
    name = _find(bag, topic)
    kind = bag.topics[name].type
    read = _reader(kind)
    if read is None:
        raise BagError(
            f"{bag.path}: '{name}' holds {kind}, which marks no episodes",
            mend=f"use {_BOOL}, {_EMPTY}, {STRING}, {TASK_OUTCOME}, or the service events of "
            "std_srvs/SetBool or std_srvs/Trigger",
        )
    wanted = None
    for raw in bag.messages([name]):
        try:
            message = bag.types.parse(raw.data, kind)
        except MessageError:
            continue
        if name.endswith(_EVENT):
            # One call shows up to four times; the first kind of request that is there counts.
            event = message.info.event_type
            if event not in (_REQUEST_SENT, _REQUEST_RECEIVED):
                continue
            wanted = event if wanted is None else wanted
            if event != wanted:
                continue
        if (marker := read(message, raw.stamp_ns)) is not None:
            yield marker


def _find(bag: Bag, topic: str) -> str:
    filled = {name: info for name, info in bag.topics.items() if info.count}
    for name in (absolute(topic), absolute(topic) + _EVENT):
        if name in filled:
            return name
    raise BagError(
        f"{bag.path}: holds no markers on '{absolute(topic)}'; its topics: "
        f"{', '.join(filled) or 'none'}",
        mend="give the marker's topic or service; calls are recorded where service introspection "
        "is on",
    )


def _reader(kind: str) -> Any:
    if kind in (_EMPTY, "std_srvs/srv/Trigger_Event"):
        return lambda _, stamp_ns: Marker(stamp_ns=stamp_ns, begins=True)
    if kind == _BOOL:
        return lambda message, stamp_ns: _switched(message.data, stamp_ns)
    if kind == "std_srvs/srv/SetBool_Event":
        return _from_set_bool
    if kind == STRING:
        return _from_text
    if kind == TASK_OUTCOME:
        return lambda message, stamp_ns: Marker(
            stamp_ns=stamp_ns,
            ends=True,
            judges=True,
            instruction=message.task or None,
            outcome=OUTCOMES.get(message.outcome),
        )
    return None


def _switched(on: bool, stamp_ns: int) -> Marker:
    return Marker(stamp_ns=stamp_ns, begins=bool(on), ends=not on)


def _from_set_bool(message: Any, stamp_ns: int) -> Marker | None:
    # Introspection of metadata only leaves the request out.
    return _switched(message.request[0].data, stamp_ns) if len(message.request) else None


def _from_text(message: Any, stamp_ns: int) -> Marker | None:
    word, _, rest = message.data.strip().partition(" ")
    word = word.lower().rstrip(":")
    if word in _BEGIN:
        return Marker(stamp_ns=stamp_ns, begins=True, instruction=rest.strip() or None)
    if word in _END:
        outcome = word if word in OUTCOMES.values() else None
        return Marker(stamp_ns=stamp_ns, ends=True, outcome=outcome)
    return Marker(stamp_ns=stamp_ns, ends=True, discards=True) if word in _DISCARD else None
