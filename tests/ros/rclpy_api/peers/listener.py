"""Subscribes reliably and spins until it is killed."""

from fastvla_ros.runtime import ensure_ros

ensure_ros()

import rclpy  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

rclpy.init(args=[])
node = rclpy.create_node("listener")
node.create_subscription(Image, "front", lambda m: print("got", flush=True), 1)
print("ready", flush=True)
rclpy.spin(node)
