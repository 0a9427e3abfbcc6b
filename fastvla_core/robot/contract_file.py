"""Reading a robot contract: YAML in, frozen dataclasses out, errors with line numbers."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from fastvla_core.errors import ContractError
from fastvla_core.plain_data import PlainDataError, convert, fill
from fastvla_core.resources import file_or_shipped
from fastvla_core.robot import contract as spec
from fastvla_core.robot.buffers import JOINT_STATES
from fastvla_core.robot.encodings import COLOR_ENCODINGS, DEPTH_ENCODINGS

_SECTIONS = {
    "joint_states": spec.JointStatesSpec,
    "sync": spec.SyncSpec,
    "watchdog": spec.WatchdogSpec,
    "outputs": spec.OutputsSpec,
}
_POSITIVE = {
    "width", "height", "max_age_s", "max_velocity", "max_acceleration", "max_effort",
    "control_rate_hz", "timeout_s", "max_skew_s", "depth_unit_m", "position_gain", "max_linear",
    "max_angular",
}  # fmt: skip


def load_contract(path_or_name: str | Path) -> spec.RobotContract:
    """Load `FILE.yaml`, or a shipped contract by its name (`tabletop`).

    Raises:
        ContractError: the file is missing or breaks a rule; names file, line, key and mend.
    """
    path = file_or_shipped(
        path_or_name, folder="config/robots", what="robot contract", error=ContractError
    )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ContractError(f"{path}: cannot be read ({why})", mend="check the path") from error
    try:
        lines = dict(_key_lines(yaml.compose(text, Loader=yaml.SafeLoader), str(path)))
        data = yaml.safe_load(text)
    # An alias that holds itself nests for ever.
    except (yaml.YAMLError, RecursionError) as error:
        raise ContractError(
            f"{path}: is not valid YAML: {error}", mend="compare it with config/robots"
        ) from error
    return _Parser(str(path), lines).contract(data)


def parse_contract(data: Mapping[str, Any], *, source: str = "contract") -> spec.RobotContract:
    """Build a contract from plain data, such as a bag or a checkpoint carries.

    Raises:
        ContractError: as `load_contract`, with `source` in place of the file.
    """
    return _Parser(source, {}).contract(data)


def _key_lines(node: yaml.Node | None, source: str, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Dotted key and line of every key below `node`; YAML itself lets a key stand twice."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        path, line = f"{prefix}{key.value}", key.start_mark.line + 1
        if path in seen:
            raise ContractError(
                f"{source}:{line}: '{path}' is there twice, first in line {seen[path]}",
                mend="remove one of the two",
            )
        seen[path] = line
        yield path, line
        yield from _key_lines(value, source, f"{path}.")


class _Parser:
    def __init__(self, source: str, lines: Mapping[str, int]) -> None:
        self._source = source
        self._lines = lines

    def contract(self, data: Any) -> spec.RobotContract:
        try:
            result = self._build(data)
        except PlainDataError as error:
            self._fail(error.where, error.what, "correct it; docs/robot_contract.md has every key")
        self._check(result)
        return result

    def _build(self, data: Any) -> spec.RobotContract:
        top = convert(data, Mapping[str, Any], where="")
        known = {item.name for item in dataclasses.fields(spec.RobotContract)}
        for key in top:
            if key not in known:
                listed = ", ".join(sorted(known))
                raise PlainDataError(key, f"is not a known key; known here: {listed}")
        for key in ("name", "cameras", "joints", "control_rate_hz"):
            if key not in top:
                raise PlainDataError("", f"misses the key '{key}'")
        gripper = top.get("gripper")
        sections = {name: _section(top.get(name), kind, name) for name, kind in _SECTIONS.items()}
        return spec.RobotContract(
            name=convert(top["name"], str, where="name"),
            cameras=_named(top["cameras"], spec.CameraSpec, "cameras"),
            joints=_named(top["joints"], spec.JointSpec, "joints"),
            gripper=None if gripper is None else fill(spec.GripperSpec, gripper, where="gripper"),
            control_rate_hz=convert(top["control_rate_hz"], float, where="control_rate_hz"),
            frame_id=convert(top.get("frame_id", "base_link"), str, where="frame_id"),
            **sections,
        )

    def _check(self, contract: spec.RobotContract) -> None:
        if not contract.joints:
            self._fail("joints", "is empty", "name at least one joint")
        if not contract.policy_cameras:
            self._fail("cameras", "holds no camera for the policy", "set `policy: true` on one")
        for where, part in _parts(contract):
            self._check_values(where, part)
        for camera in contract.cameras:
            # The cache names files after cameras, and the buffers have one stream of that name.
            if "/" in camera.name or camera.name == JOINT_STATES:
                self._fail(f"cameras.{camera.name}", "cannot be a camera's name", "rename it")
            self._check_encoding(camera)
        outputs = contract.outputs
        if outputs.interface == "twist" and outputs.twist is None:
            self._fail(
                "outputs.interface",
                "is 'twist', but there is no section outputs.twist",
                "give urdf, base, tool, max_linear and max_angular there",
            )
        joints = [joint.name for joint in contract.joints]
        turned = [name for group in contract.joint_states.orientations for name in group]
        for name in turned:
            if name not in joints or turned.count(name) > 1:
                self._fail(
                    "joint_states.orientations",
                    f"names '{name}', which is no joint or is there twice",
                    f"name four joints (x, y, z, w) each, of {', '.join(joints)}",
                )
        if contract.gripper and contract.gripper.name in {j.name for j in contract.joints}:
            self._fail("gripper.name", "is also a joint", "list the gripper once")

    def _check_encoding(self, camera: spec.CameraSpec) -> None:
        where = f"cameras.{camera.name}"
        known = DEPTH_ENCODINGS if camera.kind == "depth" else COLOR_ENCODINGS
        if (camera.kind == "depth" or camera.transport == "raw") and camera.encoding not in known:
            self._fail(
                f"{where}.encoding",
                f"is '{camera.encoding}', expected one of {', '.join(known)}",
                "use the `encoding` field of its messages, and `kind: depth` for distances",
            )
        if camera.transport == "compressed_depth" and camera.kind != "depth":
            self._fail(
                f"{where}.transport", "is 'compressed_depth', which is for distances",
                "set `kind: depth`, or another transport",
            )  # fmt: skip
        if (camera.transport, camera.encoding) == ("compressed", "32FC1"):
            self._fail(
                f"{where}.transport", "is 'compressed', which cannot carry 32FC1",
                "set `transport: compressed_depth`, or raw",
            )  # fmt: skip

    def _check_values(self, where: str, part: Any) -> None:
        for item in dataclasses.fields(part):
            value, key = getattr(part, item.name), f"{where}.{item.name}".lstrip(".")
            if item.name in _POSITIVE and value <= 0:
                self._fail(key, f"is {value}, expected more than 0", "correct the value")
            if value == "":
                self._fail(key, "is empty", "give it a value")
        if isinstance(part, (spec.JointSpec, spec.GripperSpec)) and not part.lower < part.upper:
            self._fail(
                f"{where}.lower",
                f"is {part.lower}, not below upper = {part.upper}",
                "swap or correct the two limits",
            )

    def _fail(self, where: str, what: str, mend: str) -> typing.NoReturn:
        line = self._lines.get(where)
        place = f"{self._source}:{line}" if line else self._source
        raise ContractError(f"{place}: {f'{where!r} ' if where else ''}{what}", mend=mend)


def _named(data: Any, kind: type, where: str) -> tuple[Any, ...]:
    """Entries that stand below their names, such as cameras and joints."""
    parts = []
    for name, values in convert(data, Mapping[str, Any], where=where).items():
        given = convert(values, Mapping[str, Any], where=f"{where}.{name}")
        if "name" in given:
            raise PlainDataError(
                f"{where}.{name}.name", "is not a known key: the name stands above"
            )
        parts.append(fill(kind, {**given, "name": name}, where=f"{where}.{name}"))
    return tuple(parts)


def _section(data: Any, kind: type, where: str) -> Any:
    """A section that may be left out; the joints' names are a mapping there, for people."""
    values = dict(convert({} if data is None else data, Mapping[str, Any], where=where))
    if kind is spec.JointStatesSpec and "names" in values:
        names = convert(values["names"], Mapping[str, str], where=f"{where}.names")
        values["names"] = tuple(names.items())
    return fill(kind, values, where=where)


def _parts(contract: spec.RobotContract) -> Iterator[tuple[str, Any]]:
    yield "", contract
    yield from ((f"cameras.{camera.name}", camera) for camera in contract.cameras)
    yield from ((f"joints.{joint.name}", joint) for joint in contract.joints)
    if contract.gripper is not None:
        yield "gripper", contract.gripper
    yield from ((name, getattr(contract, name)) for name in _SECTIONS)
    if contract.outputs.twist is not None:
        yield "outputs.twist", contract.outputs.twist
