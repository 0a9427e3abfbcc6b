"""Where the episodes of a recording begin and end; times are times of receipt."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from fastvla_core.bags.writer import absolute
from fastvla_core.errors import BagError, DatasetError, MessageError
from fastvla_core.robot.contract import RobotContract
from training.bags import messages
from training.bags.markers import Marker, read_markers
from training.bags.reader import Bag
from training.bags.storage import TimeRange
from training.bags.streams import find_topic
from training.bags.task_topics import outcome_of

SplitKind = Literal["bag", "gap", "instruction", "marker", "ranges"]
TASK_TOPIC = "current_task"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRule:
    """How recordings are cut into episodes.

    Attributes:
        kind: `bag`: each is one; `gap`: at pauses of all of the robot's streams; `instruction`: at
            each change of the task; `marker`: by messages or service calls; `ranges`: by a list.
        topic: Of `instruction` and `marker`; a service is named without `/_service_event`.
        gap_s: The shortest pause that ends an episode.
        ranges: The list.
    """

    kind: SplitKind = "bag"
    topic: str = ""
    gap_s: float = 0.0
    ranges: tuple[ListedRange, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRange:
    """One line of a list of episodes; seconds count from the first message of the recording.

    Attributes:
        bag: The recording's name, or the end of its path.
    """

    bag: str
    start_s: float
    end_s: float
    instruction: str | None = None
    outcome: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSpan:
    """One episode of a recording, with what is known of its task."""

    during: TimeRange
    instruction: str | None
    outcome: str | None


def parse_split(text: str) -> SplitRule:
    """A rule from `bag`, `gap:SECONDS`, `instruction[:TOPIC]`, `marker:TOPIC`, `ranges:FILE`.

    Raises:
        DatasetError: it is none of these, or the file of ranges cannot be read.
    """
    kind, _, value = text.partition(":")
    if kind == "bag" and not value:
        return SplitRule()
    if kind == "instruction":
        return SplitRule(kind="instruction", topic=value or TASK_TOPIC)
    if kind == "marker" and value:
        return SplitRule(kind="marker", topic=value.removesuffix("/_service_event"))
    if kind == "ranges" and value:
        return SplitRule(kind="ranges", ranges=_read_ranges(Path(value)))
    if kind == "gap":
        try:
            gap_s = float(value)
        except ValueError:
            gap_s = 0.0
        if 0 < gap_s < float("inf"):
            return SplitRule(kind="gap", gap_s=gap_s)
    raise DatasetError(
        f"episodes cannot be split by '{text}'",
        mend="give bag, gap:SECONDS, instruction, instruction:TOPIC, marker:TOPIC or ranges:FILE",
    )


def find_episodes(bag: Bag, *, rule: SplitRule, contract: RobotContract) -> list[EpisodeSpan]:
    """The episodes of one recording in order of time.

    Raises:
        BagError: the topic that is to split it is not in it, or marks no episode.
    """
    if rule.kind == "bag":
        whole = EpisodeSpan(during=TimeRange(), instruction=bag.instruction, outcome=bag.outcome)
        return [whole]
    ranges = list(_RULES[rule.kind](bag, rule, contract))
    if not ranges:
        raise BagError(
            f"{bag.path}: splitting by {rule.kind} {rule.topic} gives no episode".rstrip(),
            mend="check the rule; `fastvla data inspect` lists topics and pauses",
        )
    return [_described(bag, found) for found in ranges]


def _by_gap(bag: Bag, rule: SplitRule, contract: RobotContract) -> Iterator[EpisodeSpan]:
    named = [contract.joint_states.topic, contract.outputs.command]
    named += [topic for camera in contract.observed_cameras for topic in camera.transport_topics]
    topics = [topic for name in named if (topic := find_topic(bag, name)) is not None]
    gap_ns = round(rule.gap_s * 1e9)
    start_ns = last_ns = None
    for raw in bag.messages(topics):
        if start_ns is None or last_ns is None:
            start_ns = raw.stamp_ns
        elif raw.stamp_ns - last_ns > gap_ns:
            yield _span(start_ns, last_ns + 1)
            start_ns = raw.stamp_ns
        last_ns = raw.stamp_ns
    if start_ns is not None and last_ns is not None:
        yield _span(start_ns, last_ns + 1)


def _by_instruction(bag: Bag, rule: SplitRule, _: RobotContract) -> Iterator[EpisodeSpan]:
    topic = find_topic(bag, rule.topic)
    if topic is None or bag.topics[topic].type != messages.STRING:
        raise BagError(
            f"{bag.path}: holds no instructions ({messages.STRING}) on '{absolute(rule.topic)}'",
            mend="give their topic: `--split instruction:TOPIC`",
        )
    task, start_ns = "", 0
    for raw in bag.messages([topic]):
        try:
            text = bag.types.parse(raw.data, raw.type).data.strip()
        except MessageError:
            continue
        # A latched topic repeats itself; only a change ends what was asked for before.
        if text == task:
            continue
        if task:
            yield _span(start_ns, raw.stamp_ns, instruction=task)
        task, start_ns = text, raw.stamp_ns
    if task:
        yield _span(start_ns, TimeRange().end_ns, instruction=task)


def _by_marker(bag: Bag, rule: SplitRule, _: RobotContract) -> Iterator[EpisodeSpan]:
    began: Marker | None = None
    last_ns = 0
    for marker in read_markers(bag, rule.topic):
        if began is not None and not marker.discards:
            yield _span(
                began.stamp_ns, marker.stamp_ns, instruction=began.instruction,
                outcome=marker.outcome,
            )  # fmt: skip
        elif marker.judges:
            yield _span(
                last_ns, marker.stamp_ns, instruction=marker.instruction, outcome=marker.outcome
            )
        began, last_ns = marker if marker.begins else None, marker.stamp_ns
    if began is not None:
        yield _span(began.stamp_ns, TimeRange().end_ns, instruction=began.instruction)


def _by_ranges(bag: Bag, rule: SplitRule, _: RobotContract) -> Iterator[EpisodeSpan]:
    mine = [r for r in rule.ranges if f"/{bag.path.resolve()}".endswith(f"/{r.bag.strip('/')}")]
    first = next(bag.messages(), None) if mine else None
    for listed in sorted(mine, key=lambda r: r.start_s):
        if first is not None:
            yield _span(
                first.stamp_ns + round(listed.start_s * 1e9),
                first.stamp_ns + round(listed.end_s * 1e9),
                instruction=listed.instruction,
                outcome=listed.outcome,
            )


_RULES = {
    "gap": _by_gap,
    "instruction": _by_instruction,
    "marker": _by_marker,
    "ranges": _by_ranges,
}


def _span(
    start_ns: int, end_ns: int, *, instruction: str | None = None, outcome: str | None = None
) -> EpisodeSpan:
    during = TimeRange(start_ns=start_ns, end_ns=end_ns)
    return EpisodeSpan(during=during, instruction=instruction, outcome=outcome)


def _described(bag: Bag, span: EpisodeSpan) -> EpisodeSpan:
    """What the rule did not say of the task: from its topics, else what holds for the whole bag."""
    heard = outcome_of(bag.topics.values(), bag.messages, during=span.during)
    return EpisodeSpan(
        during=span.during,
        instruction=span.instruction or heard.instruction or bag.info.get("fastvla.instruction"),
        outcome=span.outcome or heard.outcome or bag.info.get("fastvla.outcome"),
    )


def _read_ranges(path: Path) -> tuple[ListedRange, ...]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".csv":
            rows: Any = list(csv.DictReader(text.splitlines()))
        elif path.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = yaml.safe_load(text)
        return tuple(_listed(row, number) for number, row in enumerate(rows, 1))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise DatasetError(
            f"{path}: is no list of episodes ({error})",
            mend="give a YAML, JSON, JSONL or CSV file with bag, start_s, end_s and, as you like, "
            "instruction and outcome per entry",
        ) from error


def _listed(row: Any, number: int) -> ListedRange:
    listed = ListedRange(
        bag=str(row["bag"]),
        start_s=float(row["start_s"]),
        end_s=float(row["end_s"]),
        instruction=row.get("instruction") or None,
        outcome=row.get("outcome") or None,
    )
    if not (0 <= listed.start_s < listed.end_s < 1e9):
        raise ValueError(f"entry {number}: start_s {listed.start_s}, end_s {listed.end_s}")
    return listed
