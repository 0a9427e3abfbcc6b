"""What a recording holds and what is wrong with it; reads any file and never raises."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastvla_core.errors import BagError, ContractError, MessageError
from training.bags.clocks import ClockReport, ClockTally
from training.bags.labels import header_ns
from training.bags.reader import Bag, open_bag
from training.bags.storage import BagProblem, RawMessage

# Gaps below this are jitter for any sensor worth recording.
_GAP_S = 0.5
_GAP_PERIODS = 5

READABLE, READABLE_WITH_LOSSES, NOT_READABLE = range(3)
"""Verdicts, and the exit statuses of `fastvla data inspect`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicReport:
    """One topic as it was read; times are times of receipt.

    Attributes:
        lost: Messages that are known to have been there and cannot be read.
        unparsed: Messages whose bytes are not of the type.
        unstamped: Messages with a header without a time.
        backward: Messages with a header older than one before them.
        clock: Headers against receipt; None for types without a header.
    """

    name: str
    type: str
    count: int
    bytes: int = 0
    rate_hz: float | None = None
    largest_gap_s: float | None = None
    largest_gap_at_s: float | None = None
    lost: int = 0
    unparsed: int = 0
    unstamped: int = 0
    backward: int = 0
    clock: ClockReport | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BagReport:
    """One recording: `verdict` is 0 readable, 1 readable with losses, 2 not readable."""

    path: str
    verdict: int
    storage: str = ""
    files: tuple[str, ...] = ()
    distribution: str | None = None
    start_ns: int | None = None
    duration_s: float = 0.0
    messages: int = 0
    instruction: str | None = None
    outcome: str | None = None
    contract: str | None = None
    contract_hash: str | None = None
    topics: tuple[TopicReport, ...] = ()
    problems: tuple[BagProblem, ...] = ()


@dataclass(slots=True)
class _Tally:
    count: int = 0
    bytes: int = 0
    first_ns: int = 0
    last_ns: int = 0
    gap_ns: int = 0
    gap_at_ns: int = 0
    unparsed: int = 0
    first_error: str = ""
    clock: ClockTally = field(default_factory=ClockTally)

    def add(self, stamp_ns: int, size: int) -> None:
        if not self.count:
            self.first_ns = stamp_ns
        elif stamp_ns - self.last_ns > self.gap_ns:
            self.gap_ns, self.gap_at_ns = stamp_ns - self.last_ns, self.last_ns
        self.count, self.bytes, self.last_ns = self.count + 1, self.bytes + size, stamp_ns


@dataclass(slots=True)
class _Reading:
    tallies: dict[str, _Tally] = field(default_factory=dict)
    start_ns: int | None = None
    end_ns: int = 0
    count: int = 0


def inspect_bag(path: str | Path, *, msgs: Sequence[Path] = ()) -> BagReport:
    """Read a whole recording and report on it, whatever is wrong with it."""
    try:
        with open_bag(path, msgs=msgs) as bag:
            return _report(bag)
    except BagError as error:
        problem = BagProblem(message=error.message, mend=error.mend, loses_data=True)
    except Exception as error:  # the promise of this function: any file gives a report
        problem = BagProblem(
            message=f"{path}: cannot be read ({type(error).__name__}: {error})",
            mend="copy the recording again; if it stays so, please report it with the file",
            loses_data=True,
        )
    return BagReport(path=str(path), verdict=NOT_READABLE, problems=(problem,))


def _report(bag: Bag) -> BagReport:
    reading = _read(bag)
    topics = tuple(_topic(bag, name, reading) for name in sorted(bag.topics))
    extra = [
        *_topic_problems(topics, reading),
        *_type_problems(bag),
        *_gap_problems(topics),
        *_count_problems(bag, reading),
    ]
    contract = None
    try:
        contract = bag.contract
    except ContractError as error:
        extra.append(BagProblem(message=error.message, mend=error.mend, loses_data=False))
    problems = (*bag.problems, *extra)
    lossy = any(problem.loses_data for problem in problems)
    verdict = READABLE if not lossy else READABLE_WITH_LOSSES if reading.count else NOT_READABLE
    start_ns = reading.start_ns
    return BagReport(
        path=str(bag.path),
        verdict=verdict,
        storage=_storage_name(bag),
        files=tuple(file.name for file in bag.files),
        distribution=_distribution(bag),
        start_ns=start_ns,
        duration_s=(reading.end_ns - start_ns) / 1e9 if start_ns is not None else 0.0,
        messages=reading.count,
        instruction=bag.instruction,
        outcome=bag.outcome,
        contract=contract.name if contract else None,
        contract_hash=contract.hash() if contract else None,
        topics=topics,
        problems=problems,
    )


def _read(bag: Bag) -> _Reading:
    reading = _Reading()
    for message in bag.messages():
        tally = reading.tallies.get(message.topic)
        if tally is None:
            tally = reading.tallies[message.topic] = _Tally()
        tally.add(message.stamp_ns, len(message.data))
        _parse(bag, message, tally)
        if reading.start_ns is None:
            reading.start_ns = message.stamp_ns
        reading.end_ns = max(reading.end_ns, message.stamp_ns)
        reading.count += 1
    return reading


def _parse(bag: Bag, raw: RawMessage, tally: _Tally) -> None:
    """Whether the bytes are of their type, and what their header says."""
    if not bag.types.knows(raw.type):
        return
    try:
        message = bag.types.parse(raw.data, raw.type)
    except MessageError as error:
        tally.unparsed += 1
        tally.first_error = tally.first_error or error.message
        return
    if hasattr(getattr(message, "header", None), "stamp"):
        tally.clock.add(receive_ns=raw.stamp_ns, header_ns=header_ns(message))


def _topic(bag: Bag, name: str, reading: _Reading) -> TopicReport:
    info = bag.topics[name]
    tally = reading.tallies.get(name, _Tally())
    span_ns = tally.last_ns - tally.first_ns
    report = TopicReport(
        name=name,
        type=info.type,
        count=tally.count,
        bytes=tally.bytes,
        lost=max(bag.lost[name], _listed_count(bag, name) - tally.count, 0),
        unparsed=tally.unparsed,
        unstamped=tally.clock.zero,
        backward=tally.clock.backward,
        clock=tally.clock.report(),
    )
    if tally.count < 2 or span_ns <= 0:
        return report
    return dataclasses.replace(
        report,
        rate_hz=(tally.count - 1) * 1e9 / span_ns,
        largest_gap_s=tally.gap_ns / 1e9,
        largest_gap_at_s=(tally.gap_at_ns - (reading.start_ns or 0)) / 1e9,
    )


def _listed_count(bag: Bag, topic: str) -> int:
    """How many messages metadata.yaml counts for a topic; 0 when it does not say."""
    for entry in bag.metadata.get("topics_with_message_count") or ():
        with contextlib.suppress(TypeError, KeyError):
            if entry["topic_metadata"]["name"] == topic:
                count = entry["message_count"]
                return count if isinstance(count, int) else 0
    return 0


def _topic_problems(topics: tuple[TopicReport, ...], reading: _Reading) -> Iterator[BagProblem]:
    for topic in topics:
        name = f"topic '{topic.name}'"
        if topic.lost:
            yield BagProblem(
                message=f"{name}: {topic.lost} messages are lost",
                mend="copy the recording again; what is left is used",
                loses_data=True,
            )
        if topic.unparsed:
            first = reading.tallies[topic.name].first_error
            yield BagProblem(
                message=f"{name}: {topic.unparsed} of {topic.count} messages cannot be parsed; "
                f"the first: {first}",
                mend="use the definition that it was recorded with: `--msgs FOLDER`",
                loses_data=True,
            )
        if topic.unstamped:
            yield BagProblem(
                message=f"{name}: {topic.unstamped} of {topic.count} headers have no stamp; "
                "their time of receipt counts",
                mend="have the driver fill header.stamp, or set sync.stamp: receive",
                loses_data=False,
            )
        if topic.backward:
            yield BagProblem(
                message=f"{name}: {topic.backward} messages have a header older than one before",
                mend="look for two publishers on this topic, or a clock that was set back",
                loses_data=False,
            )
        if topic.clock is not None and topic.clock.problem is not None:
            yield BagProblem(
                message=f"{name}: its header's clock {topic.clock.problem}",
                mend="keep the machines' clocks together (chrony, PTP), or align by the "
                "recorder's clock: `fastvla data convert --clock receive`",
                loses_data=False,
            )


def _type_problems(bag: Bag) -> Iterator[BagProblem]:
    unknown = {i.type for i in bag.topics.values() if i.count and not bag.types.knows(i.type)}
    for name in sorted(unknown):
        yield BagProblem(
            message=f"the type {name or '(none)'} is not defined in the recording; its messages "
            "were read, but not parsed",
            mend="give the folder of its package's .msg files: `--msgs FOLDER`",
            loses_data=False,
        )


def _gap_problems(topics: tuple[TopicReport, ...]) -> list[BagProblem]:
    """Holes in streams: much longer than the usual time between two messages."""
    return [
        BagProblem(
            message=f"topic '{t.name}' pauses for {t.largest_gap_s:.2f} s "
            f"{t.largest_gap_at_s:.2f} s after the start",
            mend="nothing, if it is no sensor; otherwise check its driver and the network",
            loses_data=False,
        )
        for t in topics
        if t.rate_hz
        and t.largest_gap_s
        and t.count >= 10
        and t.largest_gap_s > max(_GAP_S, _GAP_PERIODS / t.rate_hz)
    ]


def _count_problems(bag: Bag, reading: _Reading) -> list[BagProblem]:
    listed = bag.metadata.get("message_count")
    if not isinstance(listed, int) or listed == reading.count:
        return []
    return [
        BagProblem(
            message=f"{bag.path}: metadata.yaml counts {listed} messages, "
            f"{reading.count} were read",
            mend="copy the recording again" if listed > reading.count else "`ros2 bag reindex`",
            loses_data=listed > reading.count,
        )
    ]


def _storage_name(bag: Bag) -> str:
    kinds = {"sqlite3" if ".db3" in file.name else "mcap" for file in bag.files}
    packed = {"zstd files"} if any(f.suffix == ".zstd" for f in bag.files) else set()
    return ", ".join(sorted(kinds | packed))


def _distribution(bag: Bag) -> str | None:
    name: Any = bag.metadata.get("ros_distro") or bag.info.get("rosbag2.ROS_DISTRO")
    return name if isinstance(name, str) else None
