"""The task and its outcome as a recording of the topics alone tells them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from fastvla_core.errors import MessageError
from training.bags.messages import STRING, TASK_OUTCOME, from_cdr
from training.bags.storage import EVER, RawMessage, TimeRange, TopicInfo

OUTCOMES = {1: "success", 2: "failure"}
"""What `TaskOutcome.outcome` says."""


class _Messages(Protocol):
    def __call__(self, topics: list[str], *, during: TimeRange) -> Iterator[RawMessage]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTask:
    """What was asked for and how it ended, as far as it was said."""

    instruction: str | None = None
    outcome: str | None = None


def recorded_task(topics: Iterable[TopicInfo], messages: _Messages) -> RecordedTask:
    """The last task on `current_task`, and the last verdict on `task_outcome` about it."""
    return outcome_of(topics, messages, during=EVER)


def outcome_of(
    topics: Iterable[TopicInfo], messages: _Messages, *, during: TimeRange
) -> RecordedTask:
    """As `recorded_task` for a part of a recording; a task may have been said before it began."""
    infos = list(topics)
    tasks = [i.name for i in infos if i.type == STRING and i.name.endswith("/current_task")]
    ends = [i.name for i in infos if i.type == TASK_OUTCOME and i.name.endswith("/task_outcome")]
    if not tasks and not ends:
        return RecordedTask()
    instruction = outcome = None
    for raw in messages([*tasks, *ends], during=TimeRange(end_ns=during.end_ns)):
        try:
            message = from_cdr(raw.data, type_name=raw.type)
        except MessageError:
            # It tells nothing; `inspect` counts it like any other message.
            continue
        if raw.type == STRING and message.data:
            instruction, outcome = message.data, None
        elif raw.type == TASK_OUTCOME and raw.stamp_ns >= during.start_ns:
            outcome = OUTCOMES.get(message.outcome, outcome)
    return RecordedTask(instruction=instruction, outcome=outcome)
