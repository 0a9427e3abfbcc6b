"""What the black box costs: `python -m fastvla_ros.bench.black_box`.

Three raw cameras of 640x480 at 30 Hz and joint states at 100 Hz, from one process to the box in
another; then the bag of the last 30 s is asked for.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from array import array
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from fastvla_core.robot.contract_file import load_contract
from fastvla_ros.bringup_description import BringupOptions, describe
from fastvla_ros.bringup_run import NodeProcess
from fastvla_ros.bringup_spin import SharedProcess
from fastvla_ros.demo.domain import keep_to_this_machine, reserve_domain

_SIZE = (640, 480)
_CAMERA_HZ, _JOINTS_HZ = 30.0, 100.0
_READY_S = 60.0


def measure(*, seconds: float = 40.0) -> dict[str, float]:
    """CPU of the box and of the publishers with and without it, memory, and writing one bag.

    Returns:
        Shares of one core [%], memory [MiB], the bag's size [MiB] and how long it took [s].
    """
    with reserve_domain() as domain, tempfile.TemporaryDirectory() as folder:
        keep_to_this_machine(domain)
        contract = _contract(Path(folder))
        with SharedProcess(domain_id=domain) as process:
            robot = _Robot(process, str(contract))
            alone = _shares(seconds / 4)
            parameters = {"directory": f"{folder}/kept", "after_s": 0.0, "contract": str(contract)}
            with _black_box(parameters) as box:
                robot.wait_for_box()
                # The memory is full, and thinning goes on, when the last 30 s are over once.
                time.sleep(seconds)
                both = _shares(seconds / 2, pid=box.pid)
                rss_mib = _rss_mib(box.pid)
                kept = robot.keep(Path(folder) / "kept")
    return {
        "box_cpu_percent": both["other"],
        "publishers_cpu_percent": both["own"],
        "publishers_alone_cpu_percent": alone["own"],
        "box_rss_mib": rss_mib,
        **kept,
    }


def _contract(folder: Path) -> Path:
    data = load_contract("tabletop").to_dict()
    for camera in data["cameras"].values():
        camera.update(width=_SIZE[0], height=_SIZE[1])
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def _black_box(parameters: dict[str, Any]) -> NodeProcess:
    from dataclasses import replace

    options = BringupOptions(log_level="error")
    spec = next(spec for spec in describe(options) if spec.name == "black_box")
    return NodeProcess(replace(spec, parameters=parameters), options=options)


class _Robot:
    """Publishes what three cameras and the joints of a robot would."""

    def __init__(self, process: SharedProcess, contract: str) -> None:
        from rclpy.node import Node
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import Image, JointState

        self._node = node = process.add(Node("robot", use_global_arguments=False))
        spec = load_contract(contract)
        width, height = _SIZE
        # Noise, like what a sensor sees in the dark: nothing that a compressor could shrink.
        pixels = array("B", os.urandom(3 * width * height))
        self._publishers = []
        for camera in spec.cameras:
            image = Image(height=height, width=width, encoding="rgb8", step=3 * width, data=pixels)
            publisher = node.create_publisher(Image, camera.topic, qos_profile_sensor_data)
            self._publishers.append(publisher)
            node.create_timer(1 / _CAMERA_HZ, partial(self._publish, publisher, image))
        joints = node.create_publisher(JointState, spec.joint_states.topic, 10)
        state = JointState(name=list(spec.state_names), position=[0.0] * len(spec.state_names))
        node.create_timer(1 / _JOINTS_HZ, partial(self._publish, joints, state))

    def wait_for_box(self) -> None:
        """Until it listens to every camera."""
        deadline = time.monotonic() + _READY_S
        while not all(p.get_subscription_count() for p in self._publishers):
            assert time.monotonic() < deadline, "the black box did not start"
            time.sleep(0.05)

    def keep(self, folder: Path) -> dict[str, float]:
        """Ask for a bag, and wait until it is there."""
        from std_srvs.srv import Trigger

        client = self._node.create_client(Trigger, "black_box/keep")
        assert client.wait_for_service(timeout_sec=_READY_S)
        begin = time.monotonic()
        client.call_async(Trigger.Request())
        while not (bags := [p for p in folder.glob("*") if p.suffix != ".partial"]):
            time.sleep(0.01)
        taken_s = time.monotonic() - begin
        size = sum(path.stat().st_size for path in bags[0].iterdir())
        return {"bag_mib": size / (1 << 20), "bag_written_s": taken_s}

    def _publish(self, publisher: Any, message: Any) -> None:
        message.header.stamp = self._node.get_clock().now().to_msg()
        publisher.publish(message)


def _shares(seconds: float, *, pid: int | None = None) -> dict[str, float]:
    """CPU of this process and of another one [% of a core]."""
    begin_s, own_s = time.monotonic(), time.process_time()
    other_s = _cpu_s(pid) if pid is not None else 0.0
    time.sleep(seconds)
    passed_s = time.monotonic() - begin_s
    shares = {"own": (time.process_time() - own_s) / passed_s * 100}
    if pid is not None:
        shares["other"] = (_cpu_s(pid) - other_s) / passed_s * 100
    return shares


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    # proc(5): utime and stime are the fields 14 and 15; two stand before the bracket.
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    json.dump({name: round(value, 2) for name, value in measure().items()}, sys.stdout, indent=1)
    print()
