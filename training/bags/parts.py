"""One episode of a recording, read as if the recorder had run for that long only."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvla_core.robot.contract import RobotContract
from training.bags.reader import Bag
from training.bags.splitting import EpisodeSpan
from training.bags.storage import RawMessage, TopicInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class BagPart:
    """A span of a bag; see `Bag` for the members."""

    bag: Bag
    span: EpisodeSpan

    @property
    def path(self) -> Path:
        return self.bag.path

    @property
    def topics(self) -> Mapping[str, TopicInfo]:
        return self.bag.topics

    @property
    def info(self) -> Mapping[str, str]:
        return self.bag.info

    @property
    def contract(self) -> RobotContract | None:
        return self.bag.contract

    @property
    def instruction(self) -> str | None:
        return self.span.instruction

    @property
    def outcome(self) -> str | None:
        return self.span.outcome

    def messages(self, topics: Collection[str] | None = None) -> Iterator[RawMessage]:
        """Messages that were received during the span."""
        return self.bag.messages(topics, during=self.span.during)
