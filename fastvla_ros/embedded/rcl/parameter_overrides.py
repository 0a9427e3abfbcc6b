"""Initial parameter values from `-p` and `--params-file`, and which node they are for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastvla_ros.embedded.rcl._rclpy_pybind11 import RCLInvalidROSArgsError

ANY_NODE = "/**"


@dataclass(frozen=True, slots=True)
class ParameterRule:
    """Values for the nodes whose full name fits `pattern`."""

    pattern: str
    values: dict[str, Any]


def parse_parameter(text: str) -> ParameterRule:
    """Read `[node:]name:=value`; the value is YAML.

    Raises:
        RCLInvalidROSArgsError: it is not of that form.
    """
    # Late: programs without parameters on their command line start without YAML.
    from fastvla_ros.embedded.rcl.parameter_yaml import parse_value

    name, mark, value = text.partition(":=")
    if not mark or not name:
        raise RCLInvalidROSArgsError(f"parameter '{text}' is not NAME:=VALUE")
    node, colon, rest = name.partition(":")
    pattern, name = (f"/**/{node}", rest) if colon else (ANY_NODE, name)
    try:
        return ParameterRule(pattern, dict(flatten({name: parse_value(value)})))
    except RCLInvalidROSArgsError as error:
        raise RCLInvalidROSArgsError(
            f"parameter '{text}': {error.message}", mend=error.mend
        ) from error


def read_parameter_file(path: Path) -> list[ParameterRule]:
    """Read a parameter file: node names (nested namespaces allowed) over `ros__parameters`.

    Raises:
        RCLInvalidROSArgsError: the file is missing or is not a parameter file.
    """
    from fastvla_ros.embedded.rcl.parameter_yaml import parse_document

    try:
        content = parse_document(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RCLInvalidROSArgsError(f"cannot read the parameter file {path}: {error}") from error
    except RCLInvalidROSArgsError as error:
        raise RCLInvalidROSArgsError(
            f"parameter file {path}: {error.message}", mend=error.mend
        ) from error
    rules = list(_node_rules(content, ""))
    if not rules:
        raise RCLInvalidROSArgsError(
            f"{path} has no `ros__parameters`", mend="put the values below NODE: ros__parameters:"
        )
    return rules


def _node_rules(content: Any, prefix: str) -> Iterator[ParameterRule]:
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if key != "ros__parameters":
            yield from _node_rules(value, f"{prefix}/{key.strip('/')}")
        elif prefix and isinstance(value, dict):
            yield ParameterRule(prefix, dict(flatten(value)))
        else:
            raise RCLInvalidROSArgsError(
                "`ros__parameters` needs a node's name above it and names with values below it"
            )


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted names."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def overrides_for(rules: Sequence[ParameterRule], node: str) -> dict[str, Any]:
    """The values that the rules give to the node of this full name.

    Values for the same pattern replace each other; among patterns, the one that came last for
    the first time wins. So a file's `/node:` beats a `-p` if the file had a `/**:` before: ROS
    puts what `-p` says where that `/**:` stands.
    """
    patterns: dict[str, dict[str, Any]] = {}
    for rule in rules:
        patterns.setdefault(rule.pattern, {}).update(rule.values)
    result: dict[str, Any] = {}
    for pattern, values in patterns.items():
        if matches(pattern, node):
            result |= values
    return result


def matches(pattern: str, node: str) -> bool:
    """Whether a full node name fits; `/*` is one part of a name, `/**` is any number of parts."""
    expression = re.escape(pattern).replace(r"/\*\*", r"(/\w+)*").replace(r"/\*", r"/\w+")
    return re.fullmatch(expression, node) is not None
