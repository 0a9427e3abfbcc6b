"""One episode into one rosbag2 folder (mcap storage), readable by ROS and salvageable when cut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvla_core.bags.writer import BagWriter
from fastvla_core.robot.contract import RobotContract
from training.bags import messages

EXPERT_TOPIC = "expert_command"
"""Clean labels, when they differ from the commands that were executed."""


class EpisodeWriter(BagWriter):
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
        self._contract = contract
        information = {
            "fastvla.instruction": instruction,
            "fastvla.contract": json.dumps(contract.to_dict(), separators=(",", ":")),
            "fastvla.contract_hash": contract.hash(),
        }
        super().__init__(folder, information=information)

    def write(
        self,
        topic: str,
        *,
        type_name: str,
        message: Any,
        stamp_ns: int,
        publish_ns: int | None = None,
    ) -> None:
        """As `BagWriter.write`; `message` may be one of rosbags' typestore, too."""
        data = message
        if not isinstance(message, bytes | bytearray | memoryview):
            data = messages.to_cdr(message, type_name=type_name)
        super().write(
            topic, type_name=type_name, message=data, stamp_ns=stamp_ns, publish_ns=publish_ns
        )

    def image(self, camera: str, *, stamp_ns: int, image: NDArray[np.uint8]) -> None:
        """Write one frame, uint8 [H, W, 3] RGB, of the contract's camera of that name."""
        message = messages.image_message(image, stamp_ns=stamp_ns, frame_id=camera)
        topic = self._contract.camera(camera).base_topic
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
        return self.finish(
            {"fastvla.outcome": outcome.lower(), "fastvla.end_ns": str(self.last_ns)}
        )
