"""Starts, joins the graph, and waits for its first message."""

from __future__ import annotations

import time
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import Image

from fastvla_ros.bench.peers.images import qos, topic
from fastvla_ros.bench.peers.session import executing, spin_until

IMPORTED_NS = time.monotonic_ns()


def run(*, reliability: str, depth: int, timeout_s: float) -> dict[str, Any]:
    """When everything was imported, when the node stood, when the message came [monotonic ns]."""
    rclpy.init(args=[])
    node = Node("newcomer")
    first: Future = Future()

    def take(_image: Image) -> None:
        if not first.done():
            first.set_result(time.monotonic_ns())

    node.create_subscription(Image, topic(0), take, qos(reliability, depth))
    joined_ns = time.monotonic_ns()
    with executing(node) as executor:
        spin_until(executor, first, timeout_s=timeout_s, missing="no message came")
    return {"imported_ns": IMPORTED_NS, "joined_ns": joined_ns, "first_ns": first.result()}
