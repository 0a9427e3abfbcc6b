"""Where everything lies in an mcap file, found by walking its records, whatever is wrong with it.

Source: https://mcap.dev/spec
"""

from __future__ import annotations

import mmap
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from struct import error as StructError

import zstandard

from fastvla_core.errors import BagError
from training.bags.storage import BagProblem, TypeDefinition, full_type_name

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = range(1, 9)
METADATA, METADATA_INDEX, DATA_END, FIRST_PRIVATE = 0x0C, 0x0D, 0x0F, 0x80

RECORD = Struct("<BQ")
U16 = Struct("<H")
MESSAGE_HEAD = Struct("<HIQQ")
_U32, _U64 = Struct("<I"), Struct("<Q")
_CHUNK_HEAD = Struct("<QQQI")
_CHUNK_INDEX_HEAD = Struct("<QQQ")
PARSE_ERRORS = (
    ValueError, RuntimeError, StructError, zstandard.ZstdError, IndexError, EOFError,
    OverflowError, MemoryError,
)  # fmt: skip
"""What reading damaged bytes may raise."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A block of messages: its times, where its record and its data are, how it is packed."""

    start_ns: int
    end_ns: int
    offset: int
    data_at: int
    data_size: int
    size: int
    crc: int
    compression: str


@dataclass(frozen=True, slots=True)
class Channel:
    """One connection: topic, message type, encoding of the messages."""

    topic: str
    type: str
    encoding: str


class McapIndex:
    """Walks the top-level records of one file.

    Attributes:
        content: The file, mapped.
        complete: Whether the walk reached the footer.
        channels: By id, as far as known outside of chunks.
        counts: Channel id to number of messages, as the indexes say.
        loose: (stamp, position, size) of the messages outside of chunks.
        chunk_times: Position of a chunk's record to its times, as the summary says.
        chunk_counts: Position of a chunk's record to channel id to messages, as its indexes say.
        definitions: The message types by name.
        metadata: What the recorder wrote beside the messages.

    Raises:
        BagError: not an mcap file.
    """

    def __init__(self, path: Path, *, report: Callable[[BagProblem], None]) -> None:
        self._path, self._report = path, report
        self.content = _map(path)
        self.profile = ""
        self.metadata: dict[str, str] = {}
        self.channels: dict[int, Channel] = {}
        self.counts: dict[int, int] = defaultdict(int)
        self.chunks: list[Chunk] = []
        self.loose: list[tuple[int, int, int]] = []
        self.chunk_times: dict[int, tuple[int, int]] = {}
        self.chunk_counts: dict[int, Counter[int]] = defaultdict(Counter)
        self.definitions: dict[str, TypeDefinition] = {}
        self._schemas: dict[int, str] = {}
        if self.content[:8] != MAGIC:
            raise BagError(f"{path}: is not an mcap file", mend="check that the copy is complete")
        self.complete = self._scan()

    def _scan(self) -> bool:
        """Walk the top-level records; False when the file ends before its footer."""
        content, at = self.content, len(MAGIC)
        while at + RECORD.size <= len(content):
            kind, size = RECORD.unpack_from(content, at)
            start, end = at + RECORD.size, at + RECORD.size + size
            unknown = kind == 0 or DATA_END < kind < FIRST_PRIVATE
            if unknown or end > len(content):
                break
            try:
                self._record(kind, start, end)
            except PARSE_ERRORS:
                break
            if kind == FOOTER:
                return True
            at = end
        self._after_damage(at)
        return False

    def _record(self, kind: int, start: int, end: int) -> None:
        content = self.content
        if kind == CHUNK:
            self.chunks.append(self._chunk_at(start, end))
        elif kind == MESSAGE_INDEX:
            key, size = U16.unpack_from(content, start)[0], _U32.unpack_from(content, start + 2)[0]
            self.counts[key] += size // 16
            if self.chunks:
                self.chunk_counts[self.chunks[-1].offset][key] += size // 16
        elif kind == MESSAGE:
            key, _, stamp_ns, _ = MESSAGE_HEAD.unpack_from(content, start)
            self.loose.append((stamp_ns, start, end - start))
            self.counts[key] += 1
        elif kind == CHUNK_INDEX:
            start_ns, end_ns, offset = _CHUNK_INDEX_HEAD.unpack_from(content, start)
            self.chunk_times[offset + RECORD.size] = (start_ns, end_ns)
        elif kind == HEADER:
            self.profile = _text(content, start)[0]
        elif kind in (SCHEMA, CHANNEL):
            self.definition(kind, content[start:end])
        elif kind == METADATA:
            self._metadata(content[start:end])
        elif kind == DATA_END and self.loose:
            self._check_data(start)

    def _check_data(self, start: int) -> None:
        """Messages outside of chunks are covered by the checksum of the whole data section only."""
        stated = _U32.unpack_from(self.content, start)[0]
        with memoryview(self.content) as view, view[: start - RECORD.size] as data:
            wrong = stated and zlib.crc32(data) != stated
        if wrong:
            self._report(
                BagProblem(
                    message=f"{self._path}: the checksum over its messages is wrong; they are "
                    "read, but some of them may be damaged",
                    mend="copy the file again from where it was recorded",
                    loses_data=True,
                )
            )

    def _chunk_at(self, start: int, end: int) -> Chunk:
        start_ns, end_ns, size, crc = _CHUNK_HEAD.unpack_from(self.content, start)
        compression, at = _text(self.content, start + _CHUNK_HEAD.size)
        data_size = _U64.unpack_from(self.content, at)[0]
        if at + 8 + data_size > end:
            raise ValueError("chunk is larger than its record")
        return Chunk(start_ns, end_ns, start, at + 8, data_size, size, crc, compression)

    def definition(self, kind: int, record: bytes) -> None:
        """Take a schema or channel record; they stand inside of chunks, too."""
        key = U16.unpack_from(record)[0]
        if kind == SCHEMA:
            name, at = _text(record, 2)
            form, at = _text(record, at)
            self._schemas[key] = full_type_name(name)
            self.definitions[full_type_name(name)] = TypeDefinition(
                format=form, text=_text(record, at)[0]
            )
            return
        schema = U16.unpack_from(record, 2)[0]
        topic, at = _text(record, 4)
        encoding, _ = _text(record, at)
        self.channels[key] = Channel(topic, self._schemas.get(schema, ""), encoding)

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
        except PARSE_ERRORS:
            found = 0
        lost = len(self.content) - at
        if found:
            message = f"{self._path}: damaged at byte {at}; {found} chunks behind it were recovered"
        elif at + RECORD.size > len(self.content) or self._is_cut(at):
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
        kind, size = RECORD.unpack_from(self.content, at)
        return 0 < kind <= DATA_END and size < 2**32

    def _from_summary(self, behind: int) -> int:
        """Chunks and metadata that only the summary can still find; how many chunks."""
        content = self.content
        if content[-8:] != MAGIC or content[-37] != FOOTER:
            return 0
        at, found = _U64.unpack_from(content, len(content) - 28)[0], 0
        while behind < at < len(content) - 37:
            kind, size = RECORD.unpack_from(content, at)
            start = at + RECORD.size
            at = start + size
            if kind in (SCHEMA, CHANNEL):
                self._record(kind, start, at)
            elif kind in (CHUNK_INDEX, METADATA_INDEX):
                offset = _U64.unpack_from(content, start + 16 * (kind == CHUNK_INDEX))[0]
                found += offset >= behind and self._recover(offset)
        return found

    def _recover(self, at: int) -> bool:
        """Take the chunk or metadata record at a place that the summary names."""
        kind, size = RECORD.unpack_from(self.content, at)
        start = at + RECORD.size
        try:
            if kind in (CHUNK, METADATA):
                self._record(kind, start, start + size)
        except PARSE_ERRORS:
            return False
        return kind == CHUNK


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
