"""One sqlite3 file of a bag, with the messages that its write-ahead log still holds."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import zstandard

from fastvla_core.errors import BagError
from training.bags.storage import (
    EVER,
    ZSTD_MAGIC,
    BagProblem,
    RawMessage,
    TimeRange,
    TopicInfo,
    TypeDefinition,
    full_type_name,
)

MAGIC = b"SQLite format 3\x00"


class Sqlite3File:
    """Read one `.db3` file; the original is never written to.

    Args:
        path: The file.
        report: Called with every problem, at opening or while messages are read.

    Raises:
        BagError: not a database, or not one of a bag.
    """

    def __init__(self, path: Path, *, report: Callable[[BagProblem], None]) -> None:
        self._path, self._report = path, report
        self._reported: set[str] = set()
        self._bad_rows: set[int] = set()
        self.lost: Counter[str] = Counter()
        self.metadata: dict[str, str] = {}
        self.definitions: dict[str, TypeDefinition] = {}
        self._source = self._with_log(path)
        try:
            self._topics = self._read_topics()
        except sqlite3.DatabaseError as error:
            raise BagError(
                f"{path}: is not a readable rosbag2 database ({error})",
                mend="check that the copy is complete; `sqlite3 FILE .recover` may save a part",
            ) from error
        self.topics = list(self._topics.values())
        self._read_extras()

    def close(self) -> None:
        """Nothing to release: a connection lives only as long as a read."""

    def messages(
        self, topics: Collection[str] | None = None, *, during: TimeRange = EVER
    ) -> Iterator[RawMessage]:
        """Messages in order of receipt; where the file is damaged, those before the damage."""
        names = {
            key: (info.name, info.type)
            for key, info in self._topics.items()
            if info.encoding == "cdr" and (topics is None or info.name in topics)
        }
        query = "SELECT id, topic_id, timestamp, data FROM messages"
        limits = [f"topic_id IN ({','.join(map(str, names))})"] * (len(names) < len(self._topics))
        if during != EVER:
            limits.append(f"timestamp >= {during.start_ns} AND timestamp < {during.end_ns}")
        if limits:
            query += " WHERE " + " AND ".join(limits)
        with closing(self._connect()) as connection:
            try:
                for row, key, stamp_ns, data in connection.execute(
                    query + " ORDER BY timestamp, id"
                ):
                    plain = self._plain(data) if isinstance(stamp_ns, int) else None
                    if key in names and plain is not None:
                        yield RawMessage(*names[key], stamp_ns, plain)
                    elif row not in self._bad_rows:
                        self._bad_rows.add(row)
                        self.lost[names[key][0] if key in names else "(unknown topic)"] += 1
                        self._lost("holds damaged messages")
            except (sqlite3.DatabaseError, OverflowError) as error:
                self._lost(f"is damaged ({error}); the messages behind the damage are lost")

    def _plain(self, data: Any) -> bytes | None:
        """A message's bytes, also where it was compressed; None where that is damaged."""
        if not isinstance(data, bytes):
            return None
        if data[:4] != ZSTD_MAGIC:
            return data
        try:
            return zstandard.ZstdDecompressor().decompress(data)
        except (zstandard.ZstdError, MemoryError):
            return None

    def _connect(self) -> sqlite3.Connection:
        uri = f"{self._source.resolve().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True)
        connection.text_factory = lambda text: text.decode("utf-8", "replace")
        return connection

    def _with_log(self, path: Path) -> Path:
        """The path to read: a copy with the log written back, when there is a log."""
        log = path.with_name(path.name + "-wal")
        if not log.exists() or not log.stat().st_size:
            return path
        folder = Path(tempfile.mkdtemp(prefix="fastvla_bag_"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        for source in (path, log):
            shutil.copyfile(source, folder / source.name)
        copy = folder / path.name
        try:
            with closing(sqlite3.connect(copy)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.DatabaseError as error:
            self._lost(f"its write-ahead log cannot be used ({error})")
            return path
        self._report(
            BagProblem(
                message=f"{path}: messages in its write-ahead log ({log.name}) were read too",
                mend="keep the -wal file beside the bag, or write it back: "
                f"`sqlite3 {path.name} 'PRAGMA wal_checkpoint(TRUNCATE)'`",
                loses_data=False,
            )
        )
        return copy

    def _read_topics(self) -> dict[int, TopicInfo]:
        found = {}
        with closing(self._connect()) as connection:
            rows = connection.execute("SELECT id, name, type, serialization_format FROM topics")
            for key, name, type_name, encoding in rows.fetchall():
                if not isinstance(key, int):
                    continue
                found[key] = TopicInfo(
                    name=str(name),
                    type=full_type_name(str(type_name)),
                    count=self._count(connection, key),
                    encoding=str(encoding),
                )
        return found

    def _read_extras(self) -> None:
        """What newer releases keep beside the messages; Humble's bags have none of it."""
        with closing(self._connect()) as connection:
            with contextlib.suppress(sqlite3.DatabaseError):
                for (distribution,) in connection.execute("SELECT ros_distro FROM schema"):
                    self.metadata["rosbag2.ROS_DISTRO"] = str(distribution)
            with contextlib.suppress(sqlite3.DatabaseError):
                rows = connection.execute(
                    "SELECT topic_type, encoding, encoded_message_definition "
                    "FROM message_definitions"
                )
                for name, form, text in rows:
                    self.definitions[full_type_name(str(name))] = TypeDefinition(
                        format=str(form), text=str(text)
                    )

    def _count(self, connection: sqlite3.Connection, key: int) -> int:
        query = "SELECT COUNT(*) FROM messages WHERE topic_id = ?"
        try:
            return connection.execute(query, (key,)).fetchone()[0]
        except sqlite3.DatabaseError as error:
            self._lost(f"is damaged ({error}); messages cannot all be counted")
            return 0

    def _lost(self, what: str) -> None:
        if what not in self._reported:
            self._reported.add(what)
            self._report(
                BagProblem(
                    message=f"{self._path}: {what}",
                    mend="copy the file again; `sqlite3 FILE .recover` may save more",
                    loses_data=True,
                )
            )
