"""Open any rosbag2 recording: mcap or sqlite3, split, compressed, without metadata, damaged."""

from __future__ import annotations

import functools
import heapq
import json
import re
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
import zstandard

from fastvla_core.bags.writer import PARTIAL_SUFFIX
from fastvla_core.errors import BagError
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.contract_file import parse_contract
from training.bags import mcap_index, storage_db3, storage_mcap
from training.bags.storage import (
    EVER,
    ZSTD_MAGIC,
    BagProblem,
    RawMessage,
    Storage,
    TimeRange,
    TopicInfo,
    TypeDefinition,
)
from training.bags.task_topics import RecordedTask, recorded_task
from training.bags.type_library import TypeLibrary

METADATA_FILE = "metadata.yaml"
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SUFFIXES = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")


def is_bag(path: Path) -> bool:
    """Whether a path looks like a recording: a storage file, or a folder that holds one."""
    if path.is_dir():
        return (path / METADATA_FILE).is_file() or bool(_storage_files(path))
    return path.is_file() and path.name.endswith(_SUFFIXES)


def recordings_in(folder: Path) -> list[Path]:
    """The recordings that lie directly in a folder: the folder as one, or its files, one each.

    Where no metadata.yaml says so, only files named NAME_0, NAME_1, ... are parts of one recording.
    """
    files = _storage_files(folder)
    names = {re.sub(r"_\d+$", "", _bare_name(file)) for file in files}
    is_one = (folder / METADATA_FILE).is_file() or len(names) == 1
    return [folder] if is_one else files


def open_bag(path: str | Path, *, msgs: Sequence[Path] = ()) -> Bag:
    """Open a bag folder or a single storage file.

    Args:
        msgs: Folders with `PACKAGE/msg/NAME.msg` below them, for types that the bag does not
            define and that are not standard.

    Raises:
        BagError: nothing of it can be read; says why and what to do.
    """
    return Bag(Path(path), msgs=msgs)


class Bag:
    """One recording; a context manager. `problems` grows while messages are read.

    Attributes:
        path: Folder or file.
        files: Its storage files that could be opened.
        metadata: Content of `metadata.yaml`, or empty.
        info: What the recorder wrote beside the messages (`fastvla.instruction`, ...).
        problems: What is wrong with it.
        types: The definitions of its message types.
    """

    def __init__(self, path: Path, *, msgs: Sequence[Path] = ()) -> None:
        self.path = path
        self.problems: list[BagProblem] = []
        self.metadata: dict[str, Any] = {}
        self.files: list[Path] = []
        self._storages: list[Storage] = []
        self._temporary: Path | None = None
        self._open(self._find_files())
        custom = self.metadata.get("custom_data") or {}
        self.info: dict[str, str] = {str(key): str(value) for key, value in custom.items()}
        for storage in self._storages:
            self.info.update(storage.metadata)
        self.types = TypeLibrary(self._definitions(), folders=msgs)

    def __enter__(self) -> Bag:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the files."""
        for storage in self._storages:
            storage.close()
        self._storages = []

    @property
    def topics(self) -> dict[str, TopicInfo]:
        """Topics by name, counts added up over the files."""
        merged: dict[str, TopicInfo] = {}
        for info in (info for storage in self._storages for info in storage.topics):
            known = merged.get(info.name)
            count = info.count + (known.count if known else 0)
            merged[info.name] = TopicInfo(
                name=info.name, type=info.type, count=count, encoding=info.encoding
            )
        return merged

    @property
    def lost(self) -> Counter[str]:
        """Topic to number of messages that are known to be there and could not be read so far."""
        return sum((storage.lost for storage in self._storages), Counter())

    def messages(
        self, topics: Collection[str] | None = None, *, during: TimeRange = EVER
    ) -> Iterator[RawMessage]:
        """Messages of those topics (of all by default) in order of receipt, over all files."""
        streams = [storage.messages(topics, during=during) for storage in self._storages]
        if len(streams) == 1:
            return streams[0]
        return heapq.merge(*streams, key=lambda message: message.stamp_ns)

    @property
    def instruction(self) -> str | None:
        """The task that was asked for, or None when the recording does not say."""
        return self.info.get("fastvla.instruction") or self._from_topics.instruction

    @property
    def outcome(self) -> str | None:
        """How the episode ended (`success`, ...), or None when the recording does not say."""
        return self.info.get("fastvla.outcome") or self._from_topics.outcome

    @property
    def contract(self) -> RobotContract | None:
        """The robot contract that it was recorded with.

        Raises:
            ContractError: the bag holds one that cannot be used.
        """
        text = self.info.get("fastvla.contract")
        if text is None:
            return None
        try:
            data: Any = json.loads(text)
        except ValueError:
            data = text
        return parse_contract(data, source=f"{self.path}: contract")

    @functools.cached_property
    def _from_topics(self) -> RecordedTask:
        """What `ros2 bag record` kept of the task; our own recorder writes it beside."""
        return recorded_task(self.topics.values(), self.messages)

    def _definitions(self) -> dict[str, TypeDefinition]:
        return {k: v for storage in self._storages for k, v in storage.definitions.items()}

    def _report(self, problem: BagProblem) -> None:
        self.problems.append(problem)

    def _find_files(self) -> list[Path]:
        if not self.path.exists():
            raise BagError(f"{self.path}: does not exist", mend="check the path")
        if self.path.is_file():
            return [self.path]
        if not self.path.is_dir():
            raise BagError(f"{self.path}: is no file or folder", mend="give a recording")
        found = _storage_files(self.path)
        if self.path.name.endswith(PARTIAL_SUFFIX):
            self._note("the recorder was interrupted", "what is complete in it is read")
        metadata_file = self.path / METADATA_FILE
        if metadata_file.is_file():
            self.metadata = self._read_metadata(metadata_file)
            listed = self.metadata.get("relative_file_paths") or []
            for name in listed:
                if not (self.path / name).is_file():
                    self._lost(f"'{name}' is listed in {METADATA_FILE} but missing")
            found = [self.path / n for n in listed if (self.path / n).is_file()] or found
        elif found and not self.path.name.endswith(PARTIAL_SUFFIX):
            self._note(f"has no {METADATA_FILE}", "`ros2 bag reindex` writes it")
        if not found:
            raise BagError(
                f"{self.path}: holds no recording (no {', '.join(_SUFFIXES[:2])} file)",
                mend="give the folder that `fastvla record` or `ros2 bag record` wrote",
            )
        return found

    def _read_metadata(self, path: Path) -> dict[str, Any]:
        try:
            data = yaml.load(path.read_text(encoding="utf-8"), Loader=_YAML_LOADER)
            information = data["rosbag2_bagfile_information"]
            listed = information.get("relative_file_paths") or []
            if not all(isinstance(name, str) for name in listed):
                raise TypeError("relative_file_paths")
            if not isinstance(information.get("custom_data") or {}, dict):
                raise TypeError("custom_data")
            return information
        # Nested a thousand deep, YAML ends in a RecursionError.
        except (yaml.YAMLError, OSError, ValueError, TypeError, LookupError, AttributeError,
                RecursionError):  # fmt: skip
            self._note(f"{METADATA_FILE} cannot be read", "`ros2 bag reindex` writes it anew")
            return {}

    def _open(self, files: list[Path]) -> None:
        errors = []
        for file in files:
            try:
                self._storages.append(self._open_file(file))
                self.files.append(file)
            except BagError as error:
                errors.append(error)
        if not self._storages:
            raise errors[0]
        for error in errors:
            self.problems.append(
                BagProblem(message=error.message, mend=error.mend, loses_data=True)
            )

    def _open_file(self, path: Path) -> Storage:
        try:
            magic = _first(path)
        except OSError as error:
            raise BagError(
                f"{path}: cannot be read ({error.strerror})", mend="check the path"
            ) from error
        if magic[:4] == ZSTD_MAGIC:
            packed, path = path, self._decompress(path)
            magic = _first(path)
            if not magic:
                raise BagError(
                    f"{packed}: is damaged; nothing of it could be unpacked",
                    mend="copy the recording again",
                )
        if magic[:8] == mcap_index.MAGIC:
            return storage_mcap.McapFile(path, report=self._report)
        if magic == storage_db3.MAGIC:
            return storage_db3.Sqlite3File(path, report=self._report)
        raise _not_a_bag(path, magic)

    def _decompress(self, path: Path) -> Path:
        if self._temporary is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="fastvla_bag_"))
            weakref.finalize(self, shutil.rmtree, self._temporary, ignore_errors=True)
        target = self._temporary / path.name.removesuffix(".zstd")
        try:
            with path.open("rb") as source, target.open("wb") as out:
                zstandard.ZstdDecompressor().copy_stream(source, out)
        except zstandard.ZstdError as error:
            self._lost(f"'{path.name}' is damaged ({error}); what could be unpacked is read")
        except OSError as error:
            raise BagError(
                f"{path}: cannot be unpacked ({error.strerror})",
                mend="make room in the folder for temporary files (TMPDIR)",
            ) from error
        return target

    def _note(self, what: str, mend: str) -> None:
        self.problems.append(
            BagProblem(message=f"{self.path}: {what}", mend=mend, loses_data=False)
        )

    def _lost(self, what: str) -> None:
        self.problems.append(
            BagProblem(
                message=f"{self.path}: {what}", mend="copy the recording again", loses_data=True
            )
        )


def _storage_files(folder: Path) -> list[Path]:
    found = [p for p in folder.iterdir() if p.is_file() and p.name.endswith(_SUFFIXES)]
    return sorted(
        found, key=lambda p: [int(n) if n.isdigit() else n for n in re.split(r"(\d+)", p.name)]
    )


def _bare_name(file: Path) -> str:
    suffix = max((s for s in _SUFFIXES if file.name.endswith(s)), key=len)
    return file.name.removesuffix(suffix)


def _first(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _not_a_bag(path: Path, magic: bytes) -> BagError:
    if magic.startswith(b"#ROSBAG"):
        return BagError(
            f"{path}: is a ROS 1 bag", mend="convert it: `pip install rosbags`, `rosbags-convert`"
        )
    if not magic:
        return BagError(f"{path}: is empty", mend="delete it; nothing was recorded")
    return BagError(
        f"{path}: is neither an mcap nor a sqlite3 recording",
        mend="give a folder or file that `fastvla record` or `ros2 bag record` wrote",
    )
