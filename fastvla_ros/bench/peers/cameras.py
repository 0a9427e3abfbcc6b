"""Publishes the images of several cameras, each at its own timer, as a driver does."""

from __future__ import annotations

import time
from array import array
from functools import partial
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import Image

from fastvla_ros.bench.peers.images import qos, set_stamp, topic
from fastvla_ros.bench.peers.session import CpuShare, executing, spin_until


class Cameras(Node):
    """Starts when every topic is watched; done when all was sent and nobody watches any more."""

    def __init__(
        self,
        *,
        cameras: int,
        width: int,
        height: int,
        rate_hz: float,
        frames: int,
        warm_up: int,
        reliability: str,
        depth: int,
    ) -> None:
        super().__init__("cameras")
        self.done: Future = Future()
        self.cpu_share = 0.0
        self._size = (width, height)
        self._warm_up, self._total = warm_up, warm_up + frames
        self._watched = False
        self._cpu = CpuShare()
        self._pixels = [array("B", bytes(3 * width * height)) for _ in range(cameras)]
        self._sent = [0] * cameras
        profile = qos(reliability, depth)
        self._outputs = [self.create_publisher(Image, topic(i), profile) for i in range(cameras)]
        for camera in range(cameras):
            self.create_timer(1.0 / rate_hz, partial(self._tick, camera))

    def _tick(self, camera: int) -> None:
        if not self._watched:
            self._watched = all(p.get_subscription_count() for p in self._outputs)
        elif self._sent[camera] < self._total:
            self._publish(camera)
        elif not any(p.get_subscription_count() for p in self._outputs) and not self.done.done():
            self.done.set_result(None)

    def _publish(self, camera: int) -> None:
        now_ns = time.monotonic_ns()
        frame = self._sent[camera]
        if frame == self._warm_up:
            self._cpu.start()
        width, height = self._size
        image = Image(width=width, height=height, encoding="rgb8", step=3 * width)
        set_stamp(image, now_ns)
        image.header.frame_id = str(frame)
        pixels = self._pixels[camera]
        pixels[-1] = frame % 256
        image.data = pixels
        self._outputs[camera].publish(image)
        self._sent[camera] += 1
        if min(self._sent) == self._total:
            self.cpu_share = self._cpu.read()


def run(*, timeout_s: float, **settings: Any) -> dict[str, Any]:
    """Publish `warm_up` + `frames` images per camera; the share of a core that `frames` took."""
    rclpy.init(args=[])
    node = Cameras(**settings)
    with executing(node) as executor:
        spin_until(executor, node.done, timeout_s=timeout_s, missing="nobody watched to the end")
    return {"cpu_share": node.cpu_share}
