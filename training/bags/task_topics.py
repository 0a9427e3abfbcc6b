"""The task and its outcome as a recording of the topics alone tells them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from fastvla_core.errors import MessageError
from training.bags.messages import STRING, TASK_OUTCOME, from_cdr
from training.bags.storage import RawMessage, TopicInfo

_OUTCOMES = {1: "success", 2: "failure"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTask:
    """What was asked for and how it ended, as far as it was said."""

    instruction: str | None = None
    outcome: str | None = None


def recorded_task(
    topics: Iterable[TopicInfo], messages: Callable[[Collection[str]], Iterator[RawMessage]]
) -> RecordedTask:
    """The last task on `current_task`, and the last verdict on `task_outcome` about it."""
    names = {
        info.name
        for info in topics
        if (info.type == STRING and info.name.endswith("/current_task"))
        or (info.type == TASK_OUTCOME and info.name.endswith("/task_outcome"))
    }
    if not names:
        return RecordedTask()
    instruction = outcome = None
    for raw in messages(names):
        try:
            message = from_cdr(raw.data, type_name=raw.type)
        except MessageError:
            # It tells nothing; `inspect` counts it like any other message.
            continue
        if raw.type == STRING and message.data:
            instruction, outcome = message.data, None
        elif raw.type == TASK_OUTCOME:
            outcome = _OUTCOMES.get(message.outcome, outcome)
    return RecordedTask(instruction=instruction, outcome=outcome)
