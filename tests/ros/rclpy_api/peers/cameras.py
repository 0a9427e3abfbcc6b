"""Publishes images of 640x480 rgb8 on three topics, each with a number in its first bytes."""

import struct
import sys
import time
from array import array

from fastvla_ros.runtime import ensure_ros

ensure_ros()

import rclpy  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

COUNT, RATE_HZ = 60, 30.0


def main() -> None:
    rclpy.init(args=[])
    node = rclpy.create_node("cameras")
    reliability = (
        ReliabilityPolicy.RELIABLE if "reliable" in sys.argv else ReliabilityPolicy.BEST_EFFORT
    )
    # Reliable means within the depth: an image that is not there yet gives way to a newer one.
    qos = QoSProfile(depth=60, reliability=reliability)
    publishers = [node.create_publisher(Image, f"cam{n}", qos) for n in range(3)]
    while any(p.get_subscription_count() == 0 for p in publishers):
        time.sleep(0.01)
    pixels = array("B", bytes(480 * 640 * 3))
    costs = []
    start = time.monotonic()
    for number in range(COUNT):
        time.sleep(max(start + number / RATE_HZ - time.monotonic(), 0))
        struct.pack_into("<I", pixels, 0, number)
        for publisher in publishers:
            before = time.thread_time()
            image = Image(height=480, width=640, encoding="rgb8", step=1920, data=pixels)
            image.header.stamp = node.get_clock().now().to_msg()
            publisher.publish(image)
            costs.append(time.thread_time() - before)
    # The cheapest ones say what it costs when nobody else uses the processor.
    print(1e3 * sorted(costs)[len(costs) // 10], flush=True)
    time.sleep(0.5)
    node.destroy_node()
    rclpy.shutdown()


main()
