"""What making steps of a recording asks of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from fastvla_core.robot.contract import RobotContract
from training.bags.storage import RawMessage, TopicInfo


class Recording(Protocol):
    """What is read of a recording to make steps of it: a whole bag or a part."""

    @property
    def path(self) -> Path: ...

    @property
    def topics(self) -> Mapping[str, TopicInfo]: ...

    @property
    def info(self) -> Mapping[str, str]: ...

    @property
    def contract(self) -> RobotContract | None: ...

    @property
    def instruction(self) -> str | None: ...

    @property
    def outcome(self) -> str | None: ...

    def messages(self, topics: Collection[str] | None = None) -> Iterator[RawMessage]: ...
