"""Images from a process of cameras to a process that watches them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastvla_ros.bench.processes import running
from fastvla_ros.bench.runtimes import Runtime

# Starting, matching, and what a slow machine adds to the time that the frames take.
_MARGIN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """What the cameras send; frames during the warm-up are not counted."""

    cameras: int = 3
    width: int = 640
    height: int = 480
    rate_hz: float = 30.0
    frames: int = 600
    warm_up: int = 30
    reliability: str = "reliable"
    depth: int = 20

    @property
    def bytes_each(self) -> int:
        """The pixels of one image."""
        return 3 * self.width * self.height


def measure_images(publisher: Runtime, subscriber: Runtime, images: Images) -> dict[str, float]:
    """Send `images` from one process to another.

    Returns:
        Images lost, received twice or with other pixels; the age [ms] of an image when its
        callback starts, from before the message was made; shares of a core [%] of both processes.
    Raises:
        RosError: a process failed, or not one image came.
    """
    timeout_s = (images.warm_up + images.frames) / images.rate_hz + _MARGIN_S
    common = {
        "cameras": images.cameras,
        "frames": images.frames,
        "warm_up": images.warm_up,
        "reliability": images.reliability,
        "depth": images.depth,
        "timeout_s": timeout_s,
    }
    shape = {"width": images.width, "height": images.height, "rate_hz": images.rate_hz}
    with (
        running(subscriber, "watcher", size=images.bytes_each, **common) as watcher,
        running(publisher, "cameras", **shape, **common) as cameras,
    ):
        seen = watcher.report(timeout_s=timeout_s)
        sent = cameras.report(timeout_s=timeout_s)
    return evaluate(images, seen=seen, sent=sent)


def evaluate(images: Images, *, seen: dict[str, Any], sent: dict[str, Any]) -> dict[str, float]:
    """The figures of one run from what both processes report."""
    ages_ms = np.concatenate([np.array(ages_ns, np.float64) for ages_ns in seen["ages_ns"]]) / 1e6
    return {
        "lost": images.cameras * images.frames - ages_ms.size,
        "duplicates": seen["duplicates"],
        "damaged": seen["damaged"],
        **percentiles(ages_ms, unit="ms"),
        "publisher_cpu_percent": 100 * sent["cpu_share"],
        "subscriber_cpu_percent": 100 * seen["cpu_share"],
    }


def percentiles(values: np.ndarray[Any, Any], *, unit: str) -> dict[str, float]:
    """Median, 99th percentile and maximum; NaN when there is nothing."""
    if not values.size:
        return dict.fromkeys((f"p50_{unit}", f"p99_{unit}", f"max_{unit}"), float("nan"))
    p50, p99 = np.percentile(values, (50, 99))
    return {f"p50_{unit}": p50, f"p99_{unit}": p99, f"max_{unit}": values.max()}


def named(images: Images) -> str:
    """How the measurement is called in the table."""
    return f"images, {images.reliability.replace('_', ' ')}, depth {images.depth}"


def best_effort(images: Images) -> Images:
    """The same images with the QoS of sensor data (rclpy's `qos_profile_sensor_data`)."""
    return dataclasses.replace(images, reliability="best_effort", depth=5)
