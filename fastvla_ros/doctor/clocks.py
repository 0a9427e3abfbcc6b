"""Clocks: whose time the nodes use, and whether header stamps are of that time."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from fastvla_core.robot.contract import RobotContract
from fastvla_ros.doctor.findings import Finding, error, ok, warning
from fastvla_ros.doctor.graph import LiveGraph
from fastvla_ros.doctor.observing import CLOCK

# A stamp may be this far in the future: clocks of two machines under NTP.
_FUTURE_S = 0.02


def check_sim_time(graph: LiveGraph, _contract: RobotContract) -> Iterator[Finding]:
    """Every node uses the same time, and simulated time has a source."""
    simulated = sorted(name for name, value in graph.sim_time.items() if value)
    real = sorted(name for name, value in graph.sim_time.items() if not value)
    clock = len(graph.publishers.get(CLOCK, ()))
    # Whoever makes the time need not follow it.
    sources = {endpoint.node for endpoint in graph.publishers.get(CLOCK, ())}
    if simulated and not clock:
        yield error(
            "time",
            f"{', '.join(simulated)} wait for /clock, which nobody publishes",
            mend="start the simulator or `ros2 bag play --clock`, or set use_sim_time to false",
        )
    elif clock > 1:
        yield error(
            "time",
            f"/clock has {clock} publishers: {', '.join(sorted(sources))}",
            mend="stop all but one: time jumps between them",
        )
    elif simulated and set(real) - sources:
        yield error(
            "time",
            f"use_sim_time is true for {', '.join(simulated)}, and false for "
            f"{', '.join(sorted(set(real) - sources))}",
            mend="set it to one value for every node (launch argument use_sim_time)",
        )
    elif clock and real and not simulated:
        yield warning(
            "time",
            f"{', '.join(sorted(sources))} publishes /clock, and no node uses it",
            mend="use_sim_time:=true for every node, or publish_clock:=false",
        )
    else:
        yield ok("time", "from /clock" if simulated else "the system's")


def check_stamps(graph: LiveGraph, contract: RobotContract) -> Iterator[Finding]:
    """Header stamps are neither 0 nor old nor from the future."""
    ages = []
    for stream in graph.streams:
        heard = graph.heard.get(stream.name)
        if not heard or not heard.late_s:
            continue
        stamped = [late for late in heard.late_s if late is not None]
        camera = next((c for c in contract.cameras if c.name == stream.name), None)
        limit_s = camera.max_age_s if camera else contract.joint_states.max_age_s
        if not stamped:
            finding = _unstamped(stream.name, contract)
        else:
            late_s = statistics.median(stamped)
            finding = _late(stream.name, late_s, limit_s=limit_s)
            ages.append(f"{stream.name} {late_s * 1e3:.0f} ms")
        if finding is not None and contract.sync.stamp == "header":
            yield finding
            ages = [age for age in ages if not age.startswith(f"{stream.name} ")]
    if ages:
        yield ok("stamps", f"age on arrival: {', '.join(ages)}")


def _unstamped(name: str, contract: RobotContract) -> Finding | None:
    if contract.sync.stamp != "header":
        return None
    return error(
        "stamps",
        f"{name} has header stamps of 0",
        mend="have its driver stamp messages, or set sync.stamp to receive in the contract",
    )


def _late(name: str, late_s: float, *, limit_s: float) -> Finding | None:
    if late_s < -_FUTURE_S:
        return error(
            "stamps",
            f"{name} is stamped {-late_s:.2f} s in the future",
            mend="synchronise the clocks of both machines (chrony), or sync.stamp: receive",
        )
    if late_s > limit_s:
        return error(
            "stamps",
            f"{name} is {late_s:.2f} s old when it arrives, and may be {limit_s:g} s old",
            mend="synchronise the clocks of both machines (chrony); if they are, the driver is "
            "slow, or stamps with a clock of its own: sync.stamp: receive",
        )
    return None
