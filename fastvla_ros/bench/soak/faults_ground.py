"""What the faults happen to: a cell, its cameras, its disks, somebody who sends goals."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from fastvla_core.robot.contract_file import load_contract
from fastvla_ros.bench.soak.bags import BagLog
from fastvla_ros.bench.soak.cameras import CameraRelay, remappings
from fastvla_ros.bench.soak.cell import Cell
from fastvla_ros.bench.soak.goals import CONTRACT, Operator
from fastvla_ros.bench.soak.health import Health
from fastvla_ros.bench.soak.plan import CAMERAS
from fastvla_ros.bench.soak.small_disk import SmallDisk
from fastvla_ros.bringup_spin import SharedProcess
from fastvla_ros.demo.domain import keep_to_this_machine, reserve_domain

START_TIMEOUT_S = 120.0
# The black box leaves 64 MiB of a disk alone, and its bags here have a few.
_BOX_DISK_MIB, _RECORDER_DISK_MIB = 256, 16
_ROBOT = {"scene_rate_hz": 0.0, "joint_rate_hz": 50.0}
_BOX = {"seconds": 5.0, "after_s": 0.2, "memory_mib": 64, "keep": 4, "disk_mib": 128}


# On a machine that does other work, a robot at its lowest priority has pictures that are older
# than a robot's may be; what is broken here is broken for longer than this.
_CAMERA_AGE_S, _JOINTS_AGE_S, _SKEW_S = 0.6, 0.5, 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Everything that runs."""

    folder: Path
    cell: Cell
    operator: Operator
    health: Health
    cameras: dict[str, CameraRelay]
    box_disk: SmallDisk
    recorder_disk: SmallDisk
    bags: BagLog


@contextlib.contextmanager
def prepared(*, camera_hz: float) -> Iterator[Ground]:
    """Bring everything up, on a domain of its own.

    Raises:
        FastVLAError: a node does not come up, or no small disk can be mounted.
    """
    with contextlib.ExitStack() as stack:
        keep_to_this_machine(stack.enter_context(reserve_domain()))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        box_disk = stack.enter_context(SmallDisk(folder / "box_disk", mib=_BOX_DISK_MIB))
        recorder_disk = stack.enter_context(
            SmallDisk(folder / "recorder_disk", mib=_RECORDER_DISK_MIB)
        )
        kept = box_disk.path / "kept"
        process = stack.enter_context(SharedProcess())
        operator = Operator(process)
        stack.callback(operator.close)
        topics = {name: operator.contract.camera(name).topic for name in CAMERAS}
        cameras = {
            name: CameraRelay(operator.node, topic, max_age_s=_CAMERA_AGE_S)
            for name, topic in topics.items()
        }
        health = Health(operator.node)
        started_s = time.monotonic()
        cell = stack.enter_context(
            Cell(
                folder,
                contract=_patient_contract(folder),
                parameters={
                    "sim_robot": {**_ROBOT, "camera_rate_hz": camera_hz},
                    "black_box": {**_BOX, "directory": str(kept)},
                },
                remappings={"sim_robot": remappings(tuple(topics.values()))},
            )
        )
        health.wait(cell, since_s=started_s, timeout_s=START_TIMEOUT_S)
        operator.wait_until_ready(timeout_s=START_TIMEOUT_S)
        yield Ground(
            folder=folder,
            cell=cell,
            operator=operator,
            health=health,
            cameras=cameras,
            box_disk=box_disk,
            recorder_disk=recorder_disk,
            bags=BagLog(kept),
        )


def _patient_contract(folder: Path) -> Path:
    data = load_contract(CONTRACT).to_dict()
    for camera in data["cameras"].values():
        camera["max_age_s"] = _CAMERA_AGE_S
    data["joint_states"]["max_age_s"] = _JOINTS_AGE_S
    data["sync"]["max_skew_s"] = _SKEW_S
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path
