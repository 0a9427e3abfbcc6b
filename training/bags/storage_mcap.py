"""One mcap file: its messages in order of time, chunks checked before they are believed."""

from __future__ import annotations

import dataclasses
import heapq
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import lz4.frame
import zstandard

from fastvla_core.errors import BagError
from training.bags.mcap_index import (
    CHANNEL,
    MESSAGE,
    MESSAGE_HEAD,
    PARSE_ERRORS,
    RECORD,
    SCHEMA,
    U16,
    Channel,
    Chunk,
    McapIndex,
)
from training.bags.storage import (
    EVER,
    ZSTD_MAGIC,
    BagProblem,
    RawMessage,
    TimeRange,
    TopicInfo,
)


class McapFile:
    """Read one mcap file.

    Args:
        path: The file.
        report: Called with every problem, at opening or while messages are read.

    Raises:
        BagError: not an mcap file, or it holds no ROS 2 messages.
    """

    def __init__(self, path: Path, *, report: Callable[[BagProblem], None]) -> None:
        self._path, self._report = path, report
        self._bad_chunks: set[int] = set()
        self._bad_messages: set[tuple[str, int]] = set()
        self.lost: Counter[str] = Counter()
        self._index = index = McapIndex(path, report=report)
        if not index.complete or not self._indexed():
            self._count_messages()
        self.metadata = index.metadata
        self.definitions = index.definitions
        self.topics = self._topics()
        self._chunks = sorted(map(self._timed, index.chunks), key=lambda c: (c.start_ns, c.offset))
        index.loose.sort()

    def close(self) -> None:
        """Release the file."""
        self._index.content.close()

    def messages(
        self, topics: Collection[str] | None = None, *, during: TimeRange = EVER
    ) -> Iterator[RawMessage]:
        """Messages in order of receipt, also where chunks overlap in time."""
        wanted = {
            key: channel
            for key, channel in self._index.channels.items()
            if channel.encoding == "cdr" and (topics is None or channel.topic in topics)
        }
        chunked, loose = self._chunked(wanted, during), self._unchunked(wanted, during)
        stored = heapq.merge(chunked, loose, key=lambda m: m.stamp_ns)
        yield from self._unpacked(stored if self._index.loose else chunked)

    def _unpacked(self, stored: Iterator[RawMessage]) -> Iterator[RawMessage]:
        """Messages that were compressed one by one as they were before; broken ones left out."""
        for raw in stored:
            if raw.data[:4] != ZSTD_MAGIC:
                yield raw
                continue
            try:
                data = zstandard.ZstdDecompressor().decompress(raw.data)
            except (zstandard.ZstdError, MemoryError) as error:
                if (place := (raw.topic, raw.stamp_ns)) not in self._bad_messages:
                    self._bad_messages.add(place)
                    self.lost[raw.topic] += 1
                    self._broken(f"a compressed message of '{raw.topic}' is damaged ({error})")
                continue
            yield raw._replace(data=data)

    def _chunked(self, wanted: dict[int, Channel], during: TimeRange) -> Iterator[RawMessage]:
        pending: list[tuple[int, int, RawMessage]] = []
        number = 0
        for chunk in self._chunks:
            if chunk.end_ns < during.start_ns or chunk.start_ns >= during.end_ns:
                continue
            while pending and pending[0][0] < chunk.start_ns:
                yield heapq.heappop(pending)[2]
            for key, stamp_ns, data in self._load(chunk):
                if key in wanted and stamp_ns in during:
                    raw = RawMessage(wanted[key].topic, wanted[key].type, stamp_ns, data)
                    heapq.heappush(pending, (stamp_ns, number, raw))
                    number += 1
        while pending:
            yield heapq.heappop(pending)[2]

    def _unchunked(self, wanted: dict[int, Channel], during: TimeRange) -> Iterator[RawMessage]:
        for stamp_ns, at, size in self._index.loose:
            key = U16.unpack_from(self._index.content, at)[0]
            if key in wanted and stamp_ns in during:
                data = self._index.content[at + MESSAGE_HEAD.size : at + size]
                yield RawMessage(wanted[key].topic, wanted[key].type, stamp_ns, data)

    def _indexed(self) -> bool:
        known = self._index.counts.keys() <= self._index.channels.keys()
        return known and bool(self._index.counts or not self._index.chunks)

    def _timed(self, chunk: Chunk) -> Chunk:
        """The chunk with the times of its messages, where its head and the index disagree.

        No checksum covers the head of a chunk, and the order of messages depends on it.
        """
        if self._index.chunk_times.get(chunk.offset) == (chunk.start_ns, chunk.end_ns):
            return chunk
        stamps = [stamp_ns for _, stamp_ns, _ in self._load(chunk)]
        if not stamps:
            return chunk
        return dataclasses.replace(chunk, start_ns=min(stamps), end_ns=max(stamps))

    def _count_messages(self) -> None:
        """Read every chunk, for a file whose index is missing."""
        counts: dict[int, int] = defaultdict(int)
        for chunk in self._index.chunks:
            for key, _, _ in self._load(chunk):
                counts[key] += 1
        for _, at, _ in self._index.loose:
            counts[U16.unpack_from(self._index.content, at)[0]] += 1
        self._index.counts = counts

    def _load(self, chunk: Chunk) -> list[tuple[int, int, memoryview]]:
        """The messages of one chunk; a damaged chunk gives none and is reported once."""
        try:
            return self._parse(self._decompress(chunk))
        except PARSE_ERRORS as error:
            if chunk.offset not in self._bad_chunks:
                self._bad_chunks.add(chunk.offset)
                seconds = (chunk.end_ns - chunk.start_ns) / 1e9
                for key, count in self._index.chunk_counts.get(chunk.offset, Counter()).items():
                    if channel := self._index.channels.get(key):
                        self.lost[channel.topic] += count
                self._broken(
                    f"the chunk at byte {chunk.offset} is damaged ({error}); "
                    f"{seconds:.2f} s of messages are lost"
                )
            return []

    def _broken(self, what: str) -> None:
        self._report(
            BagProblem(
                message=f"{self._path}: {what}",
                mend="copy the file again from where it was recorded",
                loses_data=True,
            )
        )

    def _decompress(self, chunk: Chunk) -> bytes:
        stored = self._index.content[chunk.data_at : chunk.data_at + chunk.data_size]
        if chunk.compression == "lz4":
            content = lz4.frame.decompress(stored)
        elif chunk.compression == "zstd":
            content = zstandard.ZstdDecompressor().decompress(stored, max_output_size=chunk.size)
        elif chunk.compression:
            raise ValueError(f"unknown compression '{chunk.compression}'")
        else:
            content = stored
        if len(content) != chunk.size:
            raise ValueError(f"{len(content)} bytes instead of {chunk.size}")
        if chunk.crc and zlib.crc32(content) != chunk.crc:
            raise ValueError("its checksum is wrong")
        return content

    def _parse(self, content: bytes) -> list[tuple[int, int, memoryview]]:
        view, at, found = memoryview(content), 0, []
        while at < len(content):
            kind, size = RECORD.unpack_from(content, at)
            start = at + RECORD.size
            at = start + size
            if at > len(content):
                raise ValueError("a record is longer than its chunk")
            if kind == MESSAGE:
                key, _, stamp_ns, _ = MESSAGE_HEAD.unpack_from(content, start)
                found.append((key, stamp_ns, view[start + MESSAGE_HEAD.size : at]))
            elif kind in (SCHEMA, CHANNEL):
                self._index.definition(kind, content[start:at])
        return found

    def _topics(self) -> list[TopicInfo]:
        foreign = sorted({c.encoding for c in self._index.channels.values()} - {"cdr"})
        if self._index.channels and not any(
            c.encoding == "cdr" for c in self._index.channels.values()
        ):
            raise BagError(
                f"{self._path}: holds no ROS 2 messages (encodings: {', '.join(foreign)}; "
                f"profile '{self._index.profile}')",
                mend="record with `fastvla record` or `ros2 bag record`",
            )
        if foreign:
            self._report(
                BagProblem(
                    message=f"{self._path}: topics that are not ROS 2 ({', '.join(foreign)}) "
                    "are not read",
                    mend="nothing to do if the robot's topics are not among them",
                    loses_data=False,
                )
            )
        return [
            TopicInfo(
                name=c.topic, type=c.type, count=self._index.counts.get(k, 0), encoding=c.encoding
            )
            for k, c in self._index.channels.items()
        ]
