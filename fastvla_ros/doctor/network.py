"""ROS as this process sees it: middleware, domain, discovery, kernel buffers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fastvla_ros.doctor.findings import Finding, error, ok, warning
from fastvla_ros.doctor.machine import version_of

RMEM_MAX = Path("/proc/sys/net/core/rmem_max")

# Three 640x480 cameras between two processes need this much, measured.
_RMEM_WANTED = 4 * 1024 * 1024
_RMW = "rmw_cyclonedds_cpp"
# Beyond it the ports of a domain reach into Linux's range for outgoing connections.
_LAST_SAFE_DOMAIN = 101
_LAST_DOMAIN = 232
_RANGES = ("LOCALHOST", "SUBNET", "OFF", "SYSTEM_DEFAULT")


def check_ros() -> Iterator[Finding]:
    """Which rclpy and which middleware."""
    from fastvla_ros.runtime import ensure_ros, uses_embedded_ros

    ensure_ros()
    from rclpy.utilities import get_rmw_implementation_identifier

    rmw = get_rmw_implementation_identifier()
    if uses_embedded_ros():
        kind = f"embedded runtime (rclpy is not installed), cyclonedds {version_of('cyclonedds')}"
    else:
        distribution = os.environ.get("ROS_DISTRO", "")
        kind = f"rclpy {version_of('rclpy')} of ROS 2 {distribution}".strip()
    wanted = os.environ.get("RMW_IMPLEMENTATION", "not set")
    detail = f"{kind}, {rmw} (RMW_IMPLEMENTATION: {wanted})"
    if rmw == _RMW:
        yield ok("ros", detail)
        return
    yield warning(
        "ros",
        f"{detail}; services and actions do not cross from one vendor to another",
        mend=f"export RMW_IMPLEMENTATION={_RMW} on every machine of this robot",
    )


def check_discovery() -> Iterator[Finding]:
    """Domain and range: nodes that differ in either never find each other."""
    domain, wide = ros_domain(), discovery_range()
    detail = f"domain {domain}, range {wide}"
    uri = os.environ.get("CYCLONEDDS_URI", "")
    if uri:
        detail += f", CYCLONEDDS_URI {uri}"
    if not domain.isdigit() or int(domain) > _LAST_DOMAIN:
        mend = f"export ROS_DOMAIN_ID=0, or any number to {_LAST_SAFE_DOMAIN}"
        yield error("discovery", f"ROS_DOMAIN_ID is '{domain}'", mend=mend)
    elif int(domain) > _LAST_SAFE_DOMAIN:
        mend = f"use a ROS_DOMAIN_ID up to {_LAST_SAFE_DOMAIN}: the ports of others may be taken"
        yield warning("discovery", detail, mend=mend)
    elif wide.split(" ")[0] not in _RANGES:
        mend = f"one of {', '.join(_RANGES)}"
        yield error("discovery", f"ROS_AUTOMATIC_DISCOVERY_RANGE is '{wide}'", mend=mend)
    elif uri.startswith("file://") and not Path(uri.removeprefix("file://")).is_file():
        mend = "correct the path, or unset CYCLONEDDS_URI"
        yield error("discovery", f"{detail}: there is no such file", mend=mend)
    elif os.environ.get("ROS_LOCALHOST_ONLY") == "1" and wide.startswith("SUBNET"):
        mend = "unset ROS_LOCALHOST_ONLY (it wins), or ROS_AUTOMATIC_DISCOVERY_RANGE"
        yield warning("discovery", f"{detail}, and ROS_LOCALHOST_ONLY=1", mend=mend)
    else:
        yield ok("discovery", detail)


def ros_domain() -> str:
    """As this process's nodes take it."""
    return os.environ.get("ROS_DOMAIN_ID", "") or "0"


def discovery_range() -> str:
    """As this process's nodes take it; the two runtimes have different defaults."""
    from fastvla_ros.runtime import uses_embedded_ros

    given = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    if given:
        return given
    return "LOCALHOST (default)" if uses_embedded_ros() else "SUBNET (default)"


def network_buffers() -> Finding:
    """Whether the kernel lets images through between processes (`net.core.rmem_max`)."""
    if not RMEM_MAX.exists():
        return ok("network buffers", "unknown on this system")
    size = int(RMEM_MAX.read_text())
    if size >= _RMEM_WANTED:
        return ok("network buffers", f"rmem_max = {size}")
    return warning(
        "network buffers",
        f"net.core.rmem_max = {size}: images get lost between processes",
        mend=f"sudo sysctl -w net.core.rmem_max={_RMEM_WANTED} (and in /etc/sysctl.d to keep it)",
    )
