"""Answers `std_srvs/Trigger` until SIGINT."""

from __future__ import annotations

from typing import Any

import rclpy
from rclpy.node import Node
from std_srvs.srv import Trigger

from fastvla_ros.bench.peers.session import executing, spin_until_stopped


def _answer(_request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
    response.success = True
    return response


def run() -> dict[str, Any]:
    """Serve `echo`."""
    rclpy.init(args=[])
    node = Node("echo_server")
    node.create_service(Trigger, "echo", _answer)
    with executing(node) as executor:
        spin_until_stopped(executor)
    return {}
