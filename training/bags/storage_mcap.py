"""One mcap file, read by walking its records, so that a cut or damaged one gives what it holds.

Source: https://mcap.dev/spec
"""

from __future__ import annotations

import dataclasses
import heapq
import mmap
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from struct import error as StructError

import lz4.frame
import zstandard

from fastvla_core.errors import BagError
from training.bags.storage import ZSTD_MAGIC, BagProblem, RawMessage, TopicInfo, full_type_name

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = range(1, 9)
METADATA, METADATA_INDEX, LAST_KNOWN, FIRST_PRIVATE = 0x0C, 0x0D, 0x0F, 0x80

_RECORD = Struct("<BQ")
_U16, _U32, _U64 = Struct("<H"), Struct("<I"), Struct("<Q")
_CHUNK_HEAD = Struct("<QQQI")
_CHUNK_INDEX_HEAD = Struct("<QQQ")
_MESSAGE_HEAD = Struct("<HIQQ")
_ERRORS = (
    ValueError, RuntimeError, StructError, zstandard.ZstdError, IndexError, EOFError,
    OverflowError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Chunk:
    start_ns: int
    end_ns: int
    offset: int
    data_at: int
    data_size: int
    size: int
    crc: int
    compression: str


@dataclass(frozen=True, slots=True)
class _Channel:
    topic: str
    type: str
    encoding: str


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
        self._bytes = _map(path)
        self.profile = ""
        self.metadata: dict[str, str] = {}
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, _Channel] = {}
        self._counts: dict[int, int] = defaultdict(int)
        self._chunks: list[_Chunk] = []
        self._loose: list[tuple[int, int, int]] = []
        self._indexed_times: dict[int, tuple[int, int]] = {}
        self._bad_chunks: set[int] = set()
        if self._bytes[:8] != MAGIC:
            raise BagError(f"{path}: is not an mcap file", mend="check that the copy is complete")
        complete = self._scan()
        if not complete or not self._indexed():
            self._count_messages()
        self.topics = self._topics()
        self._chunks = sorted(map(self._timed, self._chunks), key=lambda c: (c.start_ns, c.offset))
        self._loose.sort()

    def close(self) -> None:
        """Release the file."""
        self._bytes.close()

    def messages(self, topics: Collection[str] | None = None) -> Iterator[RawMessage]:
        """Messages in order of receipt, also where chunks overlap in time."""
        wanted = {
            key: channel
            for key, channel in self._channels.items()
            if channel.encoding == "cdr" and (topics is None or channel.topic in topics)
        }
        if self._loose:
            yield from heapq.merge(
                self._chunked(wanted), self._unchunked(wanted), key=lambda m: m.stamp_ns
            )
        else:
            yield from self._chunked(wanted)

    def _chunked(self, wanted: dict[int, _Channel]) -> Iterator[RawMessage]:
        pending: list[tuple[int, int, RawMessage]] = []
        number = 0
        for chunk in self._chunks:
            while pending and pending[0][0] < chunk.start_ns:
                yield heapq.heappop(pending)[2]
            for key, stamp_ns, data in self._load(chunk):
                if key in wanted:
                    heapq.heappush(
                        pending, (stamp_ns, number, self._raw(wanted[key], stamp_ns, data))
                    )
                    number += 1
        while pending:
            yield heapq.heappop(pending)[2]

    def _unchunked(self, wanted: dict[int, _Channel]) -> Iterator[RawMessage]:
        for stamp_ns, at, size in self._loose:
            key = _U16.unpack_from(self._bytes, at)[0]
            if key in wanted:
                data = self._bytes[at + _MESSAGE_HEAD.size : at + size]
                yield self._raw(wanted[key], stamp_ns, data)

    def _raw(self, channel: _Channel, stamp_ns: int, data: bytes | memoryview) -> RawMessage:
        if data[:4] == ZSTD_MAGIC:
            data = zstandard.ZstdDecompressor().decompress(data)
        return RawMessage(channel.topic, channel.type, stamp_ns, data)

    def _scan(self) -> bool:
        """Walk the top-level records; False when the file ends before its footer."""
        content, at = self._bytes, len(MAGIC)
        while at + _RECORD.size <= len(content):
            kind, size = _RECORD.unpack_from(content, at)
            start, end = at + _RECORD.size, at + _RECORD.size + size
            unknown = kind == 0 or LAST_KNOWN < kind < FIRST_PRIVATE
            if unknown or end > len(content):
                break
            try:
                self._record(kind, start, end)
            except _ERRORS:
                break
            if kind == FOOTER:
                return True
            at = end
        self._after_damage(at)
        return False

    def _record(self, kind: int, start: int, end: int) -> None:
        content = self._bytes
        if kind == CHUNK:
            self._chunks.append(self._chunk_at(start, end))
        elif kind == MESSAGE_INDEX:
            key, size = _U16.unpack_from(content, start)[0], _U32.unpack_from(content, start + 2)[0]
            self._counts[key] += size // 16
        elif kind == MESSAGE:
            key, _, stamp_ns, _ = _MESSAGE_HEAD.unpack_from(content, start)
            self._loose.append((stamp_ns, start, end - start))
            self._counts[key] += 1
        elif kind == CHUNK_INDEX:
            start_ns, end_ns, offset = _CHUNK_INDEX_HEAD.unpack_from(content, start)
            self._indexed_times[offset + _RECORD.size] = (start_ns, end_ns)
        elif kind == HEADER:
            self.profile = _text(content, start)[0]
        elif kind in (SCHEMA, CHANNEL):
            self._definition(kind, content[start:end])
        elif kind == METADATA:
            self._metadata(content[start:end])

    def _chunk_at(self, start: int, end: int) -> _Chunk:
        start_ns, end_ns, size, crc = _CHUNK_HEAD.unpack_from(self._bytes, start)
        compression, at = _text(self._bytes, start + _CHUNK_HEAD.size)
        data_size = _U64.unpack_from(self._bytes, at)[0]
        if at + 8 + data_size > end:
            raise ValueError("chunk is larger than its record")
        return _Chunk(start_ns, end_ns, start, at + 8, data_size, size, crc, compression)

    def _definition(self, kind: int, record: bytes) -> None:
        key = _U16.unpack_from(record)[0]
        if kind == SCHEMA:
            self._schemas[key] = _text(record, 2)[0]
            return
        schema = _U16.unpack_from(record, 2)[0]
        topic, at = _text(record, 4)
        encoding, _ = _text(record, at)
        type_name = full_type_name(self._schemas.get(schema, ""))
        self._channels[key] = _Channel(topic, type_name, encoding)

    def _metadata(self, record: bytes) -> None:
        name, at = _text(record, 0)
        at += 4
        while at < len(record):
            key, at = _text(record, at)
            value, at = _text(record, at)
            self.metadata[key if name.startswith("fastvla.") else f"{name}.{key}"] = value

    def _after_damage(self, at: int) -> None:
        """Report where the records end, and find chunks behind the damage by the summary."""
        found = 0
        try:
            found = self._from_summary(at)
        except _ERRORS:
            found = 0
        lost = len(self._bytes) - at
        if found:
            message = f"{self._path}: damaged at byte {at}; {found} chunks behind it were recovered"
        elif at + _RECORD.size > len(self._bytes) or self._is_cut(at):
            message = f"{self._path}: was cut; its last {lost} bytes hold no complete record"
        else:
            message = f"{self._path}: damaged at byte {at}; the {lost} bytes from there are lost"
        self._report(
            BagProblem(
                message=message,
                mend="the complete part is read; `fastvla data convert` keeps it",
                loses_data=True,
            )
        )

    def _is_cut(self, at: int) -> bool:
        kind, size = _RECORD.unpack_from(self._bytes, at)
        return 0 < kind <= LAST_KNOWN and size < 2**32

    def _from_summary(self, behind: int) -> int:
        """Chunks and metadata that only the summary can still find; how many chunks."""
        content = self._bytes
        if content[-8:] != MAGIC or content[-37] != FOOTER:
            return 0
        at, found = _U64.unpack_from(content, len(content) - 28)[0], 0
        while behind < at < len(content) - 37:
            kind, size = _RECORD.unpack_from(content, at)
            start = at + _RECORD.size
            at = start + size
            if kind in (SCHEMA, CHANNEL):
                self._record(kind, start, at)
            elif kind in (CHUNK_INDEX, METADATA_INDEX):
                offset = _U64.unpack_from(content, start + 16 * (kind == CHUNK_INDEX))[0]
                found += offset >= behind and self._recover(offset)
        return found

    def _recover(self, at: int) -> bool:
        """Take the chunk or metadata record at a place that the summary names."""
        kind, size = _RECORD.unpack_from(self._bytes, at)
        start = at + _RECORD.size
        try:
            if kind in (CHUNK, METADATA):
                self._record(kind, start, start + size)
        except _ERRORS:
            return False
        return kind == CHUNK

    def _indexed(self) -> bool:
        return self._counts.keys() <= self._channels.keys() and bool(
            self._counts or not self._chunks
        )

    def _timed(self, chunk: _Chunk) -> _Chunk:
        """The chunk with the times of its messages, where its head and the index disagree.

        No checksum covers the head of a chunk, and the order of messages depends on it.
        """
        if self._indexed_times.get(chunk.offset) == (chunk.start_ns, chunk.end_ns):
            return chunk
        stamps = [stamp_ns for _, stamp_ns, _ in self._load(chunk)]
        if not stamps:
            return chunk
        return dataclasses.replace(chunk, start_ns=min(stamps), end_ns=max(stamps))

    def _count_messages(self) -> None:
        """Read every chunk, for a file whose index is missing."""
        counts: dict[int, int] = defaultdict(int)
        for chunk in self._chunks:
            for key, _, _ in self._load(chunk):
                counts[key] += 1
        for _, at, _ in self._loose:
            counts[_U16.unpack_from(self._bytes, at)[0]] += 1
        self._counts = counts

    def _load(self, chunk: _Chunk) -> list[tuple[int, int, memoryview]]:
        """The messages of one chunk; a damaged chunk gives none and is reported once."""
        try:
            return self._parse(self._decompress(chunk))
        except _ERRORS as error:
            if chunk.offset not in self._bad_chunks:
                self._bad_chunks.add(chunk.offset)
                seconds = (chunk.end_ns - chunk.start_ns) / 1e9
                self._report(
                    BagProblem(
                        message=f"{self._path}: the chunk at byte {chunk.offset} is damaged "
                        f"({error}); {seconds:.2f} s of messages are lost",
                        mend="copy the file again from where it was recorded",
                        loses_data=True,
                    )
                )
            return []

    def _decompress(self, chunk: _Chunk) -> bytes:
        stored = self._bytes[chunk.data_at : chunk.data_at + chunk.data_size]
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
            kind, size = _RECORD.unpack_from(content, at)
            start = at + _RECORD.size
            at = start + size
            if at > len(content):
                raise ValueError("a record is longer than its chunk")
            if kind == MESSAGE:
                key, _, stamp_ns, _ = _MESSAGE_HEAD.unpack_from(content, start)
                found.append((key, stamp_ns, view[start + _MESSAGE_HEAD.size : at]))
            elif kind in (SCHEMA, CHANNEL):
                self._definition(kind, content[start:at])
        return found

    def _topics(self) -> list[TopicInfo]:
        foreign = sorted({c.encoding for c in self._channels.values()} - {"cdr"})
        if self._channels and not any(c.encoding == "cdr" for c in self._channels.values()):
            raise BagError(
                f"{self._path}: holds no ROS 2 messages (encodings: {', '.join(foreign)}; "
                f"profile '{self.profile}')",
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
            TopicInfo(name=c.topic, type=c.type, count=self._counts.get(k, 0), encoding=c.encoding)
            for k, c in self._channels.items()
        ]


def _map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise BagError(f"{path}: is empty", mend="delete it; nothing was recorded") from error
    except OSError as error:
        raise BagError(
            f"{path}: cannot be read ({error.strerror})", mend="check the path"
        ) from error


def _text(content: bytes | mmap.mmap, at: int) -> tuple[str, int]:
    end = at + 4 + _U32.unpack_from(content, at)[0]
    if end > len(content):
        raise ValueError("a string is longer than its record")
    return content[at + 4 : end].decode("utf-8", "replace"), end
