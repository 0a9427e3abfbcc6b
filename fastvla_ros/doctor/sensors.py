"""What sensors send: pictures as the contract says, joints with known names and likely units."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

from fastvla_core.errors import MessageError
from fastvla_core.robot.buffers import JOINT_STATES
from fastvla_core.robot.contract import RobotContract
from fastvla_ros.bridge.images import read_camera
from fastvla_ros.bridge.joints import joint_state_to_state
from fastvla_ros.doctor.findings import Finding, error, ok, warning
from fastvla_ros.doctor.graph import LiveGraph

# Beyond its limits by more than this share of its range, a joint is not merely uncalibrated.
_TOLERANCE = 0.05


def check_cameras(graph: LiveGraph, contract: RobotContract) -> Iterator[Finding]:
    """Every picture can be read as the contract describes it."""
    seen = []
    for camera in contract.cameras:
        message = graph.heard[camera.name].message
        if message is None:
            continue  # said already
        try:
            pixels = read_camera(camera, message)
        except MessageError as problem:
            yield error("cameras", f"{camera.name}: {problem.message}", mend=problem.mend)
            continue
        size = (pixels.shape[1], pixels.shape[0])
        if size != (camera.width, camera.height):
            yield warning(
                "cameras",
                f"{camera.name} sends {size[0]}x{size[1]}, the contract says "
                f"{camera.width}x{camera.height}",
                mend="set the driver's or the contract's size: training and serving must agree",
            )
        else:
            seen.append(f"{camera.name} {size[0]}x{size[1]}")
    if seen:
        yield ok("cameras", ", ".join(seen))


def check_joints(graph: LiveGraph, contract: RobotContract) -> Iterator[Finding]:
    """Every joint of the contract is there, once, and where it can be."""
    message = cast(Any, graph.heard[JOINT_STATES].message)
    if message is None:
        return  # said already
    try:
        state = joint_state_to_state(message, contract=contract)
    except MessageError as problem:
        names = ", ".join(message.name) or "none"
        detail = f"{problem.message}; the robot names {names}"
        mend = problem.mend or "map them in the contract: joint_states.names"
        yield error("joints", detail, mend=mend)
        return
    outside = list(_outside(state.tolist(), contract))
    yield from outside
    if not outside:
        values = (f"{n} {v:.2f}" for n, v in zip(contract.state_names, state.tolist()))
        yield ok("joints", ", ".join(values))


def _outside(state: list[float], contract: RobotContract) -> Iterator[Finding]:
    gripper = contract.gripper
    limits = [(joint.lower, joint.upper) for joint in contract.joints]
    if gripper is not None:
        limits.append((gripper.lower, gripper.upper))
    for name, value, (lower, upper) in zip(contract.state_names, state, limits):
        slack = _TOLERANCE * (upper - lower)
        if lower - slack <= value <= upper + slack:
            continue
        is_gripper = gripper is not None and name == gripper.name
        detail = f"{name} is at {value:.3f}, its limits are {lower:g} to {upper:g}"
        guess = _likely_unit(value, lower - slack, upper + slack, is_gripper=is_gripper)
        if guess:
            mend = f"the driver sends {guess}; joint states are in rad, m (REP 103)"
            yield error("joints", f"{detail}: {guess}?", mend=mend)
        else:
            mend = "calibrate the joint, or correct the limits in the contract"
            yield warning("joints", detail, mend=mend)


def _likely_unit(value: float, lower: float, upper: float, *, is_gripper: bool) -> str:
    """What the value would be, were it within the limits in another unit."""
    if is_gripper and 0 <= value <= 1:
        return "a share of the opening, or the opening of both fingers"
    if is_gripper:
        return "millimetres" if lower <= value / 1000 <= upper else ""
    # In radians hardly any joint turns further.
    return "degrees" if abs(value) > math.tau and lower <= math.radians(value) <= upper else ""
