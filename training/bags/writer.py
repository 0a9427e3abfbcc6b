"""One episode into one rosbag2 folder (mcap storage), readable by ROS and salvageable when cut."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import yaml
from mcap.writer import CompressionType, Writer
from numpy.typing import NDArray
from rosbags.typesys import TypesysError

from fastvla_core.errors import BagError
from fastvla_core.robot.contract import RobotContract
from training.bags import messages
from training.bags.messages import absolute

PARTIAL_SUFFIX = ".partial"
EPISODE_RECORD = "fastvla.episode"
OUTCOME_RECORD = "fastvla.outcome"
EXPERT_TOPIC = "expert_command"
"""Clean labels, when they differ from the commands that were executed."""

# A chunk is lost as a whole when a file is cut, so it holds about half a second.
_CHUNK_BYTES = 256 * 1024


class EpisodeWriter:
    """Write one episode; a context manager that keeps what is there when it is interrupted.

    The instruction and the contract stand at the start of the file, the outcome at its end, and
    all of them in `metadata.yaml`. Until `close` the folder is named `<name>.partial`.

    Args:
        folder: The bag to be; must not exist.
        contract: Topics, joint order and camera names.
        instruction: The task in natural language.

    Raises:
        BagError: the folder, or one left by an interrupted writer, exists already.
    """

    def __init__(self, folder: str | Path, *, contract: RobotContract, instruction: str) -> None:
        self.folder = Path(folder)
        self._partial = self.folder.with_name(self.folder.name + PARTIAL_SUFFIX)
        for path in (self.folder, self._partial):
            if path.exists():
                raise BagError(
                    f"{path}: exists already",
                    mend="give another folder, or delete it; `fastvla data inspect` shows it",
                )
        self._partial.mkdir(parents=True)
        self._contract = contract
        self._custom = {
            "fastvla.instruction": instruction,
            "fastvla.contract": json.dumps(contract.to_dict(), separators=(",", ":")),
            "fastvla.contract_hash": contract.hash(),
        }
        self._file = (self._partial / self._file_name).open("wb")
        self._mcap = Writer(self._file, chunk_size=_CHUNK_BYTES, compression=CompressionType.LZ4)
        self._mcap.start(profile="ros2", library="fastvla")
        self._mcap.add_metadata(EPISODE_RECORD, self._custom)
        self._file.flush()
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, tuple[int, str]] = {}
        self._counts: dict[str, int] = {}
        self._first_ns: int | None = None
        self._last_ns = 0

    @property
    def _file_name(self) -> str:
        return f"{self.folder.name}_0.mcap"

    @property
    def message_count(self) -> int:
        """Messages written so far."""
        return sum(self._counts.values())

    def write(self, topic: str, *, type_name: str, message: Any, stamp_ns: int) -> None:
        """Write one message.

        Args:
            topic: With or without its leading slash.
            type_name: For example `sensor_msgs/msg/Image`.
            message: A message of rosbags' typestore, or its CDR bytes.
            stamp_ns: Time of receipt.

        Raises:
            BagError: the topic was written before with another type, or the type is unknown.
        """
        data = message
        if not isinstance(message, bytes | bytearray | memoryview):
            data = messages.to_cdr(message, type_name=type_name)
        channel, known = self._channels.get(topic) or self._channel(topic, type_name)
        if known != type_name:
            raise BagError(f"topic '{topic}' holds {known}; a {type_name} cannot be added to it")
        self._mcap.add_message(channel, log_time=stamp_ns, data=data, publish_time=stamp_ns)
        self._counts[topic] += 1
        self._first_ns = stamp_ns if self._first_ns is None else min(stamp_ns, self._first_ns)
        self._last_ns = max(stamp_ns, self._last_ns)

    def image(self, camera: str, *, stamp_ns: int, image: NDArray[np.uint8]) -> None:
        """Write one frame, uint8 [H, W, 3] RGB, of the contract's camera of that name."""
        message = messages.image_message(image, stamp_ns=stamp_ns, frame_id=camera)
        topic = self._contract.camera(camera).topic
        self.write(topic, type_name=messages.IMAGE, message=message, stamp_ns=stamp_ns)

    def joint_state(
        self,
        names: Sequence[str],
        *,
        stamp_ns: int,
        positions: NDArray[np.floating],
        velocities: NDArray[np.floating] | None = None,
    ) -> None:
        """Write measured joints; rad, m, rad/s, m/s."""
        message = messages.joint_state_message(
            names, stamp_ns=stamp_ns, positions=positions, velocities=velocities
        )
        topic = self._contract.joint_states.topic
        self.write(topic, type_name=messages.JOINT_STATE, message=message, stamp_ns=stamp_ns)

    def command(
        self,
        names: Sequence[str],
        *,
        stamp_ns: int,
        positions: NDArray[np.floating],
        duration_s: float,
        topic: str | None = None,
    ) -> None:
        """Write one target, to be reached `duration_s` after the stamp; on the command topic."""
        message = messages.trajectory_message(
            names, stamp_ns=stamp_ns, positions=positions, duration_s=duration_s
        )
        topic = topic or self._contract.outputs.command
        self.write(topic, type_name=messages.JOINT_TRAJECTORY, message=message, stamp_ns=stamp_ns)

    def close(self, outcome: str = "unknown") -> Path:
        """Finish the bag with its outcome (`success`, `failure`, ...) and give it its name."""
        ending = {"fastvla.outcome": outcome.lower(), "fastvla.end_ns": str(self._last_ns)}
        self._custom |= ending
        information = self._information()
        self._mcap.add_metadata(OUTCOME_RECORD, ending)
        self._mcap.add_metadata(
            "rosbag2", {"serialized_metadata": _dump_yaml(information), "ROS_DISTRO": "jazzy"}
        )
        self._mcap.finish()
        self._file.close()
        metadata = _dump_yaml({"rosbag2_bagfile_information": information})
        (self._partial / "metadata.yaml").write_text(metadata, encoding="utf-8")
        os.replace(self._partial, self.folder)
        return self.folder

    def discard(self) -> None:
        """Stop and delete what was written; for an episode that is not worth keeping."""
        self._file.close()
        shutil.rmtree(self._partial)

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._file.closed:
            self.close()

    def _channel(self, topic: str, type_name: str) -> tuple[int, str]:
        if type_name not in self._schemas:
            try:
                text = messages.typestore().generate_msgdef(type_name, ros_version=2)[0]
            except TypesysError as error:
                raise BagError(
                    f"topic '{topic}': the type {type_name} is not known",
                    mend="record it with `ros2 bag record`, which reads the definition from ROS",
                ) from error
            self._schemas[type_name] = self._mcap.register_schema(
                type_name, "ros2msg", text.encode()
            )
        channel = self._mcap.register_channel(
            topic=absolute(topic),
            message_encoding="cdr",
            schema_id=self._schemas[type_name],
            metadata={
                "offered_qos_profiles": "",
                "topic_type_hash": messages.typestore().hash_rihs01(type_name),
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


def _topic_metadata(topic: str, type_name: str) -> dict[str, Any]:
    return {
        "name": absolute(topic),
        "type": type_name,
        "serialization_format": "cdr",
        "offered_qos_profiles": [],
        "type_description_hash": messages.typestore().hash_rihs01(type_name),
    }


_SAFE_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_SAFE_DUMPER):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _dump_yaml(data: dict[str, Any]) -> str:
    # One line per value and no anchors: rosbag2 parses this with yaml-cpp.
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=1 << 20, default_flow_style=False)
