"""`--ros-args`: remaps, parameters, log levels. Source: ROS 2 design, "Command Line Arguments"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fastvla_core.errors import RosError

# Options that take no value.
FLAGS = {
    "--enable-rosout-logs",
    "--disable-rosout-logs",
    "--enable-stdout-logs",
    "--disable-stdout-logs",
    "--enable-external-lib-logs",
    "--disable-external-lib-logs",
}
ANY_NODE = "/**"


@dataclass(frozen=True, slots=True)
class RemapRule:
    """`[node:][rostopic:// | rosservice://]from:=to`; `source` may be `__node` or `__ns`."""

    source: str
    target: str
    node: str | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class ParameterRule:
    """Values for the nodes whose full name fits `pattern`."""

    pattern: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RosArguments:
    """What a command line says to ROS."""

    remaps: tuple[RemapRule, ...] = ()
    parameters: tuple[ParameterRule, ...] = ()
    log_levels: dict[str, str] = field(default_factory=dict)
    rosout: bool = True
    stdout: bool = True


def parse_arguments(args: Sequence[str]) -> RosArguments:
    """Read every `--ros-args ... [--]` section.

    Raises:
        RosError: an option is unknown, or its value is malformed.
    """
    remaps: list[RemapRule] = []
    parameters: list[ParameterRule] = []
    log_levels: dict[str, str] = {}
    flags: set[str] = set()
    for option, value in _options(args):
        if option in ("-r", "--remap"):
            remaps.append(parse_remap(value))
        elif option in ("-p", "--param"):
            parameters.append(parse_parameter(value))
        elif option == "--params-file":
            parameters += read_parameter_file(Path(value))
        elif option == "--log-level":
            logger, _, level = value.rpartition(":=")
            log_levels[logger] = level
        elif option in FLAGS:
            flags.add(option)
        elif option not in ("-e", "--enclave", "--log-config-file", "--log-file-name"):
            raise RosError(f"unknown ROS argument '{option}'", mend="see `ros2 run --help`")
    return RosArguments(
        tuple(remaps),
        tuple(parameters),
        log_levels,
        rosout="--disable-rosout-logs" not in flags,
        stdout="--disable-stdout-logs" not in flags,
    )


def strip_ros_arguments(args: Sequence[str]) -> list[str]:
    """The arguments outside the `--ros-args` sections."""
    return [arg for arg, inside in _sections(args) if not inside]


def _sections(args: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Each argument and whether it belongs to ROS, the section marks included."""
    inside = False
    for arg in args:
        if arg == "--ros-args":
            inside = True
        yield arg, inside
        if arg == "--":
            inside = False


def _options(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    words = [a for a, inside in _sections(args) if inside and a not in ("--ros-args", "--")]
    position = 0
    while position < len(words):
        option = words[position]
        position += 1
        if option in FLAGS:
            yield option, ""
            continue
        if position == len(words):
            raise RosError(f"ROS argument '{option}' lacks its value")
        yield option, words[position]
        position += 1


def parse_remap(text: str) -> RemapRule:
    """Read one remap rule.

    Raises:
        RosError: it is not `from:=to`.
    """
    source, mark, target = text.partition(":=")
    if not mark or not source or not target:
        raise RosError(f"remap '{text}' is not FROM:=TO")
    kind = None
    node, colon, rest = source.partition(":")
    if colon and not rest.startswith("//"):
        source = rest
    else:
        node = ""
    for prefix, name in (("rostopic://", "topic"), ("rosservice://", "service")):
        if source.startswith(prefix):
            source, kind = source.removeprefix(prefix), name
    source = "__node" if source == "__name" else source
    return RemapRule(source, target, node or None, kind)


def parse_parameter(text: str) -> ParameterRule:
    """Read `[node:]name:=value`; the value is YAML.

    Raises:
        RosError: it is not of that form.
    """
    name, mark, value = text.partition(":=")
    if not mark or not name:
        raise RosError(f"parameter '{text}' is not NAME:=VALUE")
    node, colon, rest = name.partition(":")
    pattern, name = (f"/**/{node}", rest) if colon else (ANY_NODE, name)
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RosError(f"parameter '{text}': the value is not YAML: {error}") from error
    return ParameterRule(pattern, {name: parsed})


def read_parameter_file(path: Path) -> list[ParameterRule]:
    """Read a parameter file: node names (nested namespaces allowed) over `ros__parameters`.

    Raises:
        RosError: the file is missing or is not a parameter file.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise RosError(f"cannot read the parameter file {path}: {error}") from error
    rules = list(_node_rules(content, ""))
    if not rules and content:
        raise RosError(
            f"{path} has no `ros__parameters`", mend="put the values below NODE: ros__parameters:"
        )
    return rules


def _node_rules(content: Any, prefix: str) -> Iterator[ParameterRule]:
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if key == "ros__parameters":
            yield ParameterRule(prefix or "/", dict(flatten(value or {})))
        else:
            yield from _node_rules(value, f"{prefix}/{str(key).strip('/')}")


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted names."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def overrides_for(rules: Sequence[ParameterRule], node: str) -> dict[str, Any]:
    """The values that the rules give to the node of this full name; later rules win."""
    result: dict[str, Any] = {}
    for rule in rules:
        if matches(rule.pattern.strip("/").split("/"), node.strip("/").split("/")):
            result |= rule.values
    return result


def matches(pattern: list[str], name: list[str]) -> bool:
    """Whether the parts fit; `*` is one part, `**` is any number of parts."""
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(matches(pattern[1:], name[i:]) for i in range(len(name) + 1))
    return bool(name) and pattern[0] in ("*", name[0]) and matches(pattern[1:], name[1:])
