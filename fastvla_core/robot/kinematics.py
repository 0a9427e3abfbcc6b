"""The tool's pose and velocity from the joints, by the chain of a URDF file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import ContractError

_Motion = Literal["fixed", "turns", "slides"]
_MOTIONS: Mapping[str | None, _Motion] = {
    "fixed": "fixed",
    "revolute": "turns",
    "continuous": "turns",
    "prismatic": "slides",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainJoint:
    """One joint between two links: a fixed pose, then a motion about or along `axis`.

    Attributes:
        rotation, offset: Of the joint's frame in its parent link, float64 [3, 3] and [3] in m.
        axis: Unit vector in the joint's frame, float64 [3].
        column: Its index among the joint positions; -1 when it is fixed.
    """

    name: str
    motion: _Motion
    rotation: NDArray[np.float64]
    offset: NDArray[np.float64]
    axis: NDArray[np.float64]
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolPose:
    """The tool link in the base link: float64 [3, 3] and [3] in m."""

    rotation: NDArray[np.float64]
    position: NDArray[np.float64]


class ToolChain:
    """The joints between a base link and a tool link.

    Args:
        joints: From the base to the tool.
        width: How many joint positions there are.
    """

    def __init__(self, joints: Sequence[ChainJoint], *, width: int) -> None:
        self._joints = tuple(joints)
        self._width = width

    def pose(self, positions: NDArray[np.floating]) -> ToolPose:
        """Where the tool is at these joint positions, float [J]; rad and m."""
        return self._walk(positions)[0]

    def jacobian(self, positions: NDArray[np.floating]) -> NDArray[np.float64]:
        """What each joint's velocity gives the tool, float64 [6, J], in the axes of the base.

        The first three rows are the velocity of the tool's origin, the others its rate of turn.
        """
        tool, axes, origins = self._walk(positions)
        jacobian = np.zeros((6, self._width))
        for joint, axis, origin in zip(self._joints, axes, origins):
            if joint.motion == "turns":
                jacobian[:3, joint.column] = np.cross(axis, tool.position - origin)
                jacobian[3:, joint.column] = axis
            elif joint.motion == "slides":
                jacobian[:3, joint.column] = axis
        return jacobian

    def _walk(
        self, positions: NDArray[np.floating]
    ) -> tuple[ToolPose, list[NDArray[np.float64]], list[NDArray[np.float64]]]:
        """The tool's pose, and each joint's axis and origin in the base."""
        rotation, position = np.eye(3), np.zeros(3)
        axes, origins = [], []
        for joint in self._joints:
            position = position + rotation @ joint.offset
            rotation = rotation @ joint.rotation
            axis = rotation @ joint.axis
            axes.append(axis)
            origins.append(position)
            if joint.motion == "turns":
                rotation = turn(axis, float(positions[joint.column])) @ rotation
            elif joint.motion == "slides":
                position = position + axis * float(positions[joint.column])
        return ToolPose(rotation=rotation, position=position), axes, origins


def read_chain(path: Path, *, base: str, tool: str, joints: Sequence[str]) -> ToolChain:
    """The chain between two links of a URDF file.

    Args:
        joints: Names of the joint positions, in their order. All must move the tool.

    Raises:
        ContractError: the file cannot be read, a link is not there, or a joint between the two is
            of another kind or not among `joints`.
    """
    parents = _joints_by_child(path)
    chain: list[ChainJoint] = []
    link = tool
    while link != base:
        element = parents.get(link)
        if element is None or len(chain) > len(parents):
            _fail(path, f"does not connect the links '{base}' and '{tool}'", "correct their names")
        chain.append(_read_joint(path, element, joints))
        link = _named(path, element, "parent", "link")
    idle = sorted(set(joints) - {joint.name for joint in chain if joint.motion != "fixed"})
    if idle:
        _fail(
            path,
            f"has no joint {', '.join(idle)} between '{base}' and '{tool}'; a twist cannot move it",
            "choose the links on either side of it, or another outputs.interface",
        )
    return ToolChain(chain[::-1], width=len(joints))


def turn(axis: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """The rotation about a unit vector [rad], float64 [3, 3]; Rodrigues' formula."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)


def _joints_by_child(path: Path) -> dict[str, ElementTree.Element]:
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        _fail(path, f"cannot be read as URDF ({error})", "expand xacro first: `xacro in > out`")
    return {_named(path, joint, "child", "link"): joint for joint in root.iterfind("joint")}


def _read_joint(path: Path, element: ElementTree.Element, joints: Sequence[str]) -> ChainJoint:
    name, kind = element.get("name", ""), element.get("type")
    motion = _MOTIONS.get(kind)
    if motion is None or element.find("mimic") is not None:
        what = "mimics another" if motion else f"is {kind}"
        _fail(path, f"joint '{name}' {what}", "only fixed, revolute and prismatic joints will do")
    if motion != "fixed" and name not in joints:
        _fail(
            path,
            f"joint '{name}' moves the tool, but it is none of {', '.join(joints)}",
            "add it to the contract's joints, or map its name in joint_states.names",
        )
    origin = element.find("origin")
    roll, pitch, yaw = _triple(path, origin, "rpy", "0 0 0")
    axis = _triple(path, element.find("axis"), "xyz", "1 0 0")
    length = float(np.linalg.norm(axis))
    if length == 0:
        _fail(path, f"joint '{name}' has no axis", "correct the file")
    x, y, z = np.eye(3)
    return ChainJoint(
        name=name,
        motion=motion,
        rotation=turn(z, yaw) @ turn(y, pitch) @ turn(x, roll),
        offset=_triple(path, origin, "xyz", "0 0 0"),
        axis=axis / length,
        column=joints.index(name) if motion != "fixed" else -1,
    )


def _triple(
    path: Path, element: ElementTree.Element | None, key: str, default: str
) -> NDArray[np.float64]:
    text = default if element is None else element.get(key, default)
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError:
        values = np.zeros(0)
    if values.shape != (3,) or not np.isfinite(values).all():
        _fail(path, f'{key}="{text}" is no three numbers', "correct the file")
    return values


def _named(path: Path, element: ElementTree.Element, tag: str, key: str) -> str:
    found = element.find(tag)
    value = None if found is None else found.get(key)
    if value is None:
        _fail(path, f"joint '{element.get('name')}' has no <{tag}>", "correct the file")
    return value


def _fail(path: Path, what: str, mend: str) -> NoReturn:
    raise ContractError(f"{path}: {what}", mend=mend)
