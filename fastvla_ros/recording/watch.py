"""Which streams come, which are late, silent or missing: each said once, in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fastvla_ros.recording.streams import Stream

# What comes within this time is there from the start.
_START_S = 3.0
# A stream that pauses for so long and for so many of its periods has stopped.
_SILENT_S = 2.0
_SILENT_PERIODS = 10


@dataclass(slots=True, eq=False)
class _Heard:
    count: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    is_silent: bool = False
    is_missed: bool = False

    @property
    def pause_s(self) -> float:
        """How long a pause is no news."""
        period_s = (self.last_s - self.first_s) / max(self.count - 1, 1)
        return max(_SILENT_S, _SILENT_PERIODS * period_s)


class StreamWatch:
    """Counts messages per stream, and finds what a person should be told.

    Times are seconds since the start, given by the caller.

    Args:
        streams: Those that are watched. Only streams that come all the time can fall silent:
            latched ones are only missed, never called silent.
    """

    def __init__(self, streams: Iterable[Stream]) -> None:
        self._streams = {stream.name: stream for stream in streams}
        self._heard = {name: _Heard() for name in self._streams}

    @property
    def counts(self) -> dict[str, int]:
        """Messages by stream."""
        return {name: heard.count for name, heard in self._heard.items()}

    def on_message(self, name: str, *, at_s: float) -> str:
        """Take a message; what is to be said of it, or ""."""
        heard = self._heard[name]
        news = ""
        if not heard.count:
            heard.first_s = at_s
            if heard.is_missed or at_s > _START_S:
                news = f"{name} comes from now on, {at_s:.1f} s after the start"
        elif heard.is_silent:
            news = f"{name} is back after {at_s - heard.last_s:.1f} s"
        heard.count, heard.last_s, heard.is_silent = heard.count + 1, at_s, False
        return news

    def missing(self) -> list[Stream]:
        """Streams of which nothing has come."""
        return [self._streams[name] for name, heard in self._heard.items() if not heard.count]

    def miss(self, stream: Stream) -> bool:
        """Note that it was said that nothing comes; False when it was said before."""
        heard = self._heard[stream.name]
        told, heard.is_missed = heard.is_missed, True
        return not told

    def fallen_silent(self, *, now_s: float) -> list[str]:
        """What is to be said of sensors that came, and come no more."""
        news = []
        for name, heard in self._heard.items():
            stopped = heard.count > 1 and now_s - heard.last_s > heard.pause_s
            if stopped and not heard.is_silent and self._streams[name].is_sensor:
                heard.is_silent = True
                news.append(f"{name} has stopped: nothing for {now_s - heard.last_s:.1f} s")
        return news


def why_silent(node: Any, stream: Stream) -> str:
    """What the graph says about a stream of which nothing comes."""
    topic = node.resolve_topic_name(stream.topic)
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return f"nobody publishes '{topic}'"
    names = ", ".join(f"{p.node_namespace.rstrip('/')}/{p.node_name}" for p in publishers)
    kinds = {publisher.topic_type for publisher in publishers} - {stream.type_name}
    if kinds:
        return (
            f"{names} publishes '{topic}' as {', '.join(sorted(kinds))}, not as {stream.type_name}"
        )
    return f"{names} publishes '{topic}', and no message arrives (`fastvla doctor` knows more)"
