"""Images reuse the memory of those before them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Images of a size whose memory malloc hands back by default.
CODE = """
import resource
from array import array
from fastvla_ros.embedded.install import install
install()
import rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("camera")
publisher = node.create_publisher(Image, "image", 10)
image = Image(data=array("B", bytes(921_600)))
for _ in range(10):
    publisher.publish(image)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    publisher.publish(image)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 40)
rclpy.shutdown()
"""


def faults_per_image(**environment):
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


@pytest.mark.skipif("glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="not glibc")
def test_published_images_fault_no_pages_in():
    # An image has 225 pages.
    assert faults_per_image() < 20


@pytest.mark.skipif("glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="not glibc")
def test_thresholds_of_the_environment_stay():
    assert faults_per_image(MALLOC_TRIM_THRESHOLD_="131072") > 100
