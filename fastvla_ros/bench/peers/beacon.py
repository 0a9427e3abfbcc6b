"""Publishes small images until SIGINT, for programs that have just started."""

from __future__ import annotations

from typing import Any

import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image

from fastvla_ros.bench.peers.images import qos, topic
from fastvla_ros.bench.peers.session import executing, spin_until_stopped


def run(*, rate_hz: float, reliability: str, depth: int) -> dict[str, Any]:
    """Publish at `rate_hz`: a subscriber waits for at most one period once it is matched."""
    rclpy.init(args=[])
    node = Node("beacon")
    publisher = node.create_publisher(Image, topic(0), qos(reliability, depth))
    node.create_timer(1.0 / rate_hz, lambda: publisher.publish(Image()))
    with executing(node) as executor:
        spin_until_stopped(executor)
    return {}
