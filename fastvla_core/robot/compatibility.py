"""Whether a policy that was trained for one robot contract can serve a robot with another.

A policy depends on what it sees and on what its numbers mean: the cameras, the joints in their
order, and their ranges. Topics, rates, transports and command interfaces may change, and limits
may become narrower, because the guard keeps them.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastvla_core.robot.contract import CameraSpec, GripperSpec, JointSpec, RobotContract


def policy_differences(ours: RobotContract, theirs: RobotContract) -> list[str]:
    """What keeps a policy trained for `theirs` from serving `ours`, one line per key."""
    return [*_cameras(ours, theirs), *_order(ours, theirs), *_ranges(ours, theirs)]


def _cameras(ours: RobotContract, theirs: RobotContract) -> Iterator[str]:
    served = {camera.name: camera for camera in ours.cameras}
    for trained in theirs.policy_cameras:
        yield from _camera(served.get(trained.name), trained)


def _camera(served: CameraSpec | None, trained: CameraSpec) -> Iterator[str]:
    where = f"cameras.{trained.name}"
    if served is None:
        yield f"{where}: (absent) here, a camera of the policy there"
        return
    if served.kind != trained.kind:
        yield f"{where}.kind: {served.kind!r} here, {trained.kind!r} there"
    if not served.policy:
        yield f"{where}.policy: False here, True there"
    if trained.required and not served.required:
        yield f"{where}.required: False here, True there: the policy cannot do without it"


def _order(ours: RobotContract, theirs: RobotContract) -> Iterator[str]:
    here, there = list(ours.state_names), list(theirs.state_names)
    if here != there:
        what = "joint order" if sorted(here) == sorted(there) else "joints"
        yield f"{what}: {here} here, {there} there"


def _ranges(ours: RobotContract, theirs: RobotContract) -> Iterator[str]:
    trained = {joint.name: joint for joint in theirs.joints}
    pairs: list[tuple[str, JointSpec | GripperSpec, JointSpec | GripperSpec | None]] = [
        (f"joints.{joint.name}", joint, trained.get(joint.name)) for joint in ours.joints
    ]
    if ours.gripper is not None:
        pairs.append(("gripper", ours.gripper, theirs.gripper))
    for where, here, there in pairs:
        if there is None:
            continue
        if here.lower < there.lower:
            yield f"{where}.lower: {here.lower} here, {there.lower} there"
        if here.upper > there.upper:
            yield f"{where}.upper: {here.upper} here, {there.upper} there"
