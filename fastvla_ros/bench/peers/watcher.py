"""Receives the images of all cameras and notes their ages."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import Image

from fastvla_ros.bench.peers.images import age_ns, qos, topic
from fastvla_ros.bench.peers.session import CpuShare, executing, spin_until

QUIET_S = 2.0


class Watcher(Node):
    """Done when the last frame of every camera is there, or nothing comes any more."""

    def __init__(
        self, *, cameras: int, frames: int, warm_up: int, reliability: str, depth: int, size: int
    ) -> None:
        super().__init__("watcher")
        self.done: Future = Future()
        self.cpu_share = 0.0
        self.damaged = 0
        self.duplicates = 0
        self.ages_ns: list[dict[int, int]] = [{} for _ in range(cameras)]
        self._warm_up, self._last = warm_up, warm_up + frames - 1
        self._size = size
        self._latest_s: float | None = None
        self._cpu = CpuShare()
        profile = qos(reliability, depth)
        for camera in range(cameras):
            self.create_subscription(Image, topic(camera), partial(self._take, camera), profile)
        self.create_timer(QUIET_S / 4, self._end_if_quiet)

    def _take(self, camera: int, image: Image) -> None:
        now_ns = time.monotonic_ns()
        self._latest_s = now_ns * 1e-9
        frame = int(image.header.frame_id)
        if frame < self._warm_up:
            return
        self._cpu.start()
        ages_ns = self.ages_ns[camera]
        self.duplicates += frame in ages_ns
        self.damaged += len(image.data) != self._size or image.data[-1] != frame % 256
        ages_ns[frame] = age_ns(image, now_ns)
        self.cpu_share = self._cpu.read()
        if all(self._last in ages_ns for ages_ns in self.ages_ns):
            self._end()

    def _end_if_quiet(self) -> None:
        if self._latest_s is not None and time.monotonic() - self._latest_s > QUIET_S:
            self._end()

    def _end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


def run(*, timeout_s: float, **settings: Any) -> dict[str, Any]:
    """Receive until the last frame; ages [ns] from before a message was made to its callback."""
    rclpy.init(args=[])
    node = Watcher(**settings)
    with executing(node) as executor:
        spin_until(executor, node.done, timeout_s=timeout_s, missing="no image came")
    return {
        "ages_ns": [list(ages_ns.values()) for ages_ns in node.ages_ns],
        "damaged": node.damaged,
        "duplicates": node.duplicates,
        "cpu_share": node.cpu_share,
    }
