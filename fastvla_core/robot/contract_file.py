"""Reading a robot contract: YAML in, frozen dataclasses out, errors with line numbers."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fastvla_core.errors import ContractError
from fastvla_core.resources import share_path
from fastvla_core.robot import contract as spec

_SECTIONS = {
    "joint_states": spec.JointStatesSpec,
    "sync": spec.SyncSpec,
    "watchdog": spec.WatchdogSpec,
    "outputs": spec.OutputsSpec,
}
_POSITIVE = {
    "width", "height", "max_age_s", "max_velocity", "max_acceleration", "max_effort",
    "control_rate_hz", "timeout_s", "max_skew_s",
}  # fmt: skip


def load_contract(path_or_name: str | Path) -> spec.RobotContract:
    """Load `FILE.yaml`, or a shipped contract by its name (`tabletop`).

    Raises:
        ContractError: the file is missing or breaks a rule; names file, line, key and mend.
    """
    path = Path(path_or_name)
    if not path.suffix and not path.exists():
        try:
            path = share_path(f"config/robots/{path_or_name}.yaml")
        except Exception as error:
            raise ContractError(
                f"there is no shipped robot contract '{path_or_name}'",
                mend="give the path of a .yaml file, or a name from config/robots",
            ) from error
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ContractError(
            f"{path}: cannot be read ({error.strerror})", mend="check the path"
        ) from error
    try:
        node = yaml.compose(text)
    except yaml.YAMLError as error:
        raise ContractError(f"{path}: is not valid YAML: {error}") from error
    lines = _key_lines(node)
    return _Parser(str(path), lines).contract(yaml.safe_load(text))


def parse_contract(data: Mapping[str, Any], *, source: str = "contract") -> spec.RobotContract:
    """Build a contract from plain data, such as a bag or a checkpoint carries.

    Raises:
        ContractError: as `load_contract`, with `source` in place of the file.
    """
    return _Parser(source, {}).contract(data)


def _key_lines(node: yaml.Node | None, prefix: str = "") -> dict[str, int]:
    lines: dict[str, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = f"{prefix}{key.value}"
            lines[path] = key.start_mark.line + 1
            lines.update(_key_lines(value, f"{path}."))
    return lines


class _Parser:
    def __init__(self, source: str, lines: Mapping[str, int]) -> None:
        self._source = source
        self._lines = lines

    def contract(self, data: Any) -> spec.RobotContract:
        top = self._mapping(data, "")
        known = {f.name for f in dataclasses.fields(spec.RobotContract)}
        self._only_known(top, known, "")
        for key in ("name", "cameras", "joints", "control_rate_hz"):
            if key not in top:
                self._fail("", f"misses the key '{key}'", f"add '{key}:' to the file")
        cameras = self._mapping(top["cameras"], "cameras")
        joints = self._mapping(top["joints"], "joints")
        gripper = top.get("gripper")
        sections = {
            name: self._section(kind, top.get(name) or {}, name) for name, kind in _SECTIONS.items()
        }
        result = spec.RobotContract(
            name=self._value(top["name"], str, "name"),
            cameras=tuple(
                self._section(spec.CameraSpec, v, f"cameras.{n}", name=n)
                for n, v in cameras.items()
            ),
            joints=tuple(
                self._section(spec.JointSpec, v, f"joints.{n}", name=n) for n, v in joints.items()
            ),
            gripper=self._section(spec.GripperSpec, gripper, "gripper") if gripper else None,
            control_rate_hz=self._value(top["control_rate_hz"], float, "control_rate_hz"),
            frame_id=self._value(top.get("frame_id", "base_link"), str, "frame_id"),
            **sections,
        )
        self._check(result)
        return result

    def _check(self, contract: spec.RobotContract) -> None:
        if not contract.joints:
            self._fail("joints", "is empty", "name at least one joint")
        if not contract.policy_cameras:
            self._fail("cameras", "holds no camera for the policy", "set `policy: true` on one")
        limits = [(f"joints.{j.name}", j.lower, j.upper) for j in contract.joints]
        if contract.gripper:
            limits.append(("gripper", contract.gripper.lower, contract.gripper.upper))
        for where, lower, upper in limits:
            if not lower < upper:
                self._fail(
                    f"{where}.lower",
                    f"is {lower}, not below upper = {upper}",
                    "swap or correct the two limits",
                )
        for camera in contract.cameras:
            if camera.transport == "raw" and camera.encoding not in spec.RAW_ENCODINGS:
                self._fail(
                    f"cameras.{camera.name}.encoding",
                    f"is '{camera.encoding}', expected one of {', '.join(spec.RAW_ENCODINGS)}",
                    "use the `encoding` field of the camera's messages",
                )
        if contract.gripper and contract.gripper.name in {j.name for j in contract.joints}:
            self._fail("gripper.name", "is also a joint", "list the gripper once")

    def _section(self, kind: type, data: Any, where: str, **given: Any) -> Any:
        values = dict(self._mapping(data, where))
        fields = {f.name: f for f in dataclasses.fields(kind)}
        self._only_known(values, fields.keys() - given.keys(), where)
        hints = typing.get_type_hints(kind)
        for name, item in fields.items():
            if name in given:
                values[name] = given[name]
            elif name in values:
                values[name] = self._value(values[name], hints[name], f"{where}.{name}")
            elif item.default is dataclasses.MISSING:
                self._fail(where, f"misses the key '{name}'", f"add '{name}:' below '{where}:'")
        return kind(**values)

    def _value(self, value: Any, hint: Any, where: str) -> Any:
        if where == "joint_states.names":
            names = self._mapping(value, where)
            return tuple((str(k), str(v)) for k, v in names.items())
        if typing.get_origin(hint) is typing.Literal:
            if value not in typing.get_args(hint):
                options = ", ".join(map(str, typing.get_args(hint)))
                self._fail(where, f"is {value!r}, expected one of {options}", "pick one of them")
            return value
        expected = hint.__name__ if not isinstance(hint, types.UnionType) else str(hint)
        if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not hint:
            self._fail(where, f"is {value!r}, expected {expected}", "correct the value")
        if hint is float and not math.isfinite(value):
            self._fail(where, f"is {value}, expected a finite number", "correct the value")
        if where.rsplit(".", 1)[-1] in _POSITIVE and value <= 0:
            self._fail(where, f"is {value}, expected more than 0", "correct the value")
        return value

    def _mapping(self, data: Any, where: str) -> Mapping[str, Any]:
        if not isinstance(data, Mapping):
            self._fail(where, f"is {data!r}, expected keys and values", "see config/robots")
        return data

    def _only_known(self, data: Mapping[str, Any], known: typing.Iterable[str], where: str) -> None:
        known = sorted(known)
        for key in data:
            if key not in known:
                path = f"{where}.{key}" if where else str(key)
                self._fail(path, "is not a known key", f"known here: {', '.join(known)}")

    def _fail(self, where: str, what: str, mend: str) -> typing.NoReturn:
        line = self._lines.get(where)
        place = f"{self._source}:{line}" if line else self._source
        raise ContractError(f"{place}: {f'{where!r} ' if where else ''}{what}", mend=mend)
