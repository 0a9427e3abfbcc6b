"""Serialised messages into one rosbag2 folder (mcap storage): whole, or not under its name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import yaml
from mcap.writer import CompressionType, Writer

from fastvla_core.bags import definitions
from fastvla_core.bags.spare_file import SpareFile, is_full
from fastvla_core.errors import BagError

PARTIAL_SUFFIX = ".partial"
EPISODE_RECORD = "fastvla.episode"
OUTCOME_RECORD = "fastvla.outcome"

# A chunk is lost as a whole when a file is cut, so it holds about half a second.
_CHUNK_BYTES = 256 * 1024
# Held back for the end of the file: its index grows with it (measured: 0.05 % of the messages).
_SPARE_BYTES = 4 * 1024 * 1024
_INDEX_SHARE = 1000
_SPARE_FILE = "spare_room"


class BagWriter:
    """Write one recording; a context manager that keeps what is there when it is interrupted.

    `information` stands at the start of the file, the ending at its end, and all of it in
    `metadata.yaml`. Until `close` the folder is named `<name>.partial`. On a full disk everything
    that was taken is kept: room for the end of the file is held back from the start.

    Args:
        folder: The bag to be; must not exist.
        information: Kept with the messages, under keys such as `fastvla.instruction`.

    Attributes:
        folder: The bag to be.

    Raises:
        BagError: the folder, or one left by an interrupted writer, exists already.
        OSError: it cannot be made.
    """

    def __init__(self, folder: str | Path, *, information: Mapping[str, str]) -> None:
        self.folder = Path(folder)
        self._partial = self.folder.with_name(self.folder.name + PARTIAL_SUFFIX)
        for path in (self.folder, self._partial):
            if path.exists():
                raise BagError(
                    f"{path}: exists already",
                    mend="give another folder, or delete it; `fastvla data inspect` shows it",
                )
        self._custom = dict(information)
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, tuple[int, str]] = {}
        self._counts: dict[str, int] = {}
        self._first_ns: int | None = None
        self._last_ns = 0
        self._largest = 0
        self._partial.mkdir(parents=True)
        self._file = SpareFile(self._partial / self._file_name, spare=self._partial / _SPARE_FILE)
        self._mcap = Writer(
            cast(IO[Any], self._file), chunk_size=_CHUNK_BYTES, compression=CompressionType.LZ4
        )
        self._begin()

    def _begin(self) -> None:
        try:
            self._file.keep_spare(_SPARE_BYTES)
            self._mcap.start(profile="ros2", library="fastvla")
            self._mcap.add_metadata(EPISODE_RECORD, self._custom)
        except OSError:
            self.discard()
            raise
        if self._file.full:
            self.discard()
            raise _disk_full(self.folder, "nothing was recorded")

    @property
    def _file_name(self) -> str:
        return f"{self.folder.name}_0.mcap"

    @property
    def last_ns(self) -> int:
        """The latest time of receipt; 0 before the first message."""
        return self._last_ns

    @property
    def message_count(self) -> int:
        """Messages written so far."""
        return sum(self._counts.values())

    def write(
        self,
        topic: str,
        *,
        type_name: str,
        message: bytes | memoryview,
        stamp_ns: int,
        publish_ns: int | None = None,
    ) -> None:
        """Write one message.

        Args:
            topic: With or without its leading slash.
            type_name: For example `sensor_msgs/msg/Image`.
            message: Its CDR bytes.
            stamp_ns: Time of receipt, by which recordings are ordered.
            publish_ns: When it was really sent, where that is another time.

        Raises:
            BagError: the topic was written before with another type, or the type is unknown; or
                the disk is full, and what was written before this message can be closed.
        """
        channel, known = self._channels.get(topic) or self._channel(topic, type_name)
        if known != type_name:
            raise BagError(f"topic '{topic}' holds {known}; a {type_name} cannot be added to it")
        self._make_sure_of_room(len(message))
        self._mcap.add_message(
            channel,
            log_time=stamp_ns,
            # Any buffer will do; mcap's own annotation is narrower.
            data=cast(bytes, message),
            publish_time=stamp_ns if publish_ns is None else publish_ns,
        )
        self._counts[topic] += 1
        self._first_ns = stamp_ns if self._first_ns is None else min(stamp_ns, self._first_ns)
        self._last_ns = max(stamp_ns, self._last_ns)

    def flush(self) -> None:
        """Hand everything to the system: what was written survives the end of this process."""
        self._mcap.flush()

    def close(self) -> Path:
        """Finish the bag and give it its name.

        Raises:
            BagError: the disk is so full that not even the end of the file fits.
        """
        return self.finish({})

    def finish(self, ending: Mapping[str, str]) -> Path:
        """As `close`, with what is only known at the end (`fastvla.outcome`, ...)."""
        self._custom |= ending
        information = self._information()
        try:
            if ending:
                self._mcap.add_metadata(OUTCOME_RECORD, dict(ending))
            self._mcap.add_metadata(
                "rosbag2", {"serialized_metadata": _dump_yaml(information), "ROS_DISTRO": "jazzy"}
            )
            self._mcap.finish()
            self._file.sync()
            self._file.close()
            metadata = _dump_yaml({"rosbag2_bagfile_information": information})
            (self._partial / "metadata.yaml").write_text(metadata, encoding="utf-8")
        except OSError as error:
            self._file.close()
            if not is_full(error):
                raise
            raise _disk_full(
                self.folder, f"{self._partial} holds what was recorded before"
            ) from error
        os.replace(self._partial, self.folder)
        return self.folder

    def discard(self) -> None:
        """Stop and delete what was written; for a recording that is not worth keeping."""
        self._file.close()
        shutil.rmtree(self._partial)

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._file.closed:
            self.close()

    def _make_sure_of_room(self, size: int) -> None:
        # Two of the largest messages: the one that is packed and the one that is written.
        self._largest = max(self._largest, size)
        self._file.keep_spare(_SPARE_BYTES + 2 * self._largest + self._file.tell() // _INDEX_SHARE)
        if self._file.full:
            raise _disk_full(self.folder, "what was recorded until now is kept")

    def _channel(self, topic: str, type_name: str) -> tuple[int, str]:
        if type_name not in self._schemas:
            if not definitions.is_known(type_name):
                raise BagError(
                    f"topic '{topic}': the type {type_name} is not known",
                    mend="record it with `ros2 bag record`, which reads the definition from ROS",
                )
            self._schemas[type_name] = self._mcap.register_schema(
                type_name, "ros2msg", definitions.definition(type_name).encode()
            )
        channel = self._mcap.register_channel(
            topic=absolute(topic),
            message_encoding="cdr",
            schema_id=self._schemas[type_name],
            metadata={
                "offered_qos_profiles": "",
                "topic_type_hash": definitions.type_hash(type_name),
            },
        )
        self._channels[topic] = (channel, type_name)
        self._counts[topic] = 0
        return channel, type_name

    def _information(self) -> dict[str, Any]:
        start_ns = self._first_ns or 0
        span = {
            "starting_time": {"nanoseconds_since_epoch": start_ns},
            "duration": {"nanoseconds": self._last_ns - start_ns},
            "message_count": self.message_count,
        }
        topics = [
            {"topic_metadata": _topic_metadata(topic, kind), "message_count": self._counts[topic]}
            for topic, (_, kind) in self._channels.items()
        ]
        return {
            "version": 9,
            "storage_identifier": "mcap",
            **span,
            "topics_with_message_count": topics,
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [self._file_name],
            "files": [{"path": self._file_name, **span}],
            "custom_data": self._custom,
            "ros_distro": "jazzy",
        }


def absolute(topic: str) -> str:
    """The fully qualified name of a topic below the root namespace."""
    return topic if topic.startswith("/") else f"/{topic}"


def _disk_full(folder: Path, kept: str) -> BagError:
    return BagError(f"{folder}: the disk is full; {kept}", mend="make room, or write elsewhere")


def _topic_metadata(topic: str, type_name: str) -> dict[str, Any]:
    return {
        "name": absolute(topic),
        "type": type_name,
        "serialization_format": "cdr",
        "offered_qos_profiles": [],
        "type_description_hash": definitions.type_hash(type_name),
    }


_SAFE_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_SAFE_DUMPER):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _dump_yaml(data: dict[str, Any]) -> str:
    # One line per value and no anchors: rosbag2 parses this with yaml-cpp.
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=1 << 20, default_flow_style=False)
