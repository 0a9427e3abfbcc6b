"""Parameter values in YAML, typed as ROS types them, which is not as YAML 1.1 does.

`1e-3` is a number here, `0x1F` and `017` are integers, `yes` and `on` are true, a date is a text.
Source: rcl_yaml_param_parser's rules for scalars (strtoll with base 0, then strtod).
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

from fastvla_ros.embedded.rcl._rclpy_pybind11 import RCLInvalidROSArgsError

TRUE = frozenset(["Y", "y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"])
FALSE = frozenset(["N", "n", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"])
INTEGER = re.compile(r"\s*[+-]?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)\Z")
DECIMAL = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\Z")
SPECIAL = re.compile(r"\s*([+-]?)\.?(inf|Inf|INF|nan|NaN|NAN|infinity)\Z")
PLAIN = "!plain"


class ScalarLoader(yaml.SafeLoader):
    """Marks every scalar without quotes, and gives it no type of YAML's."""

    yaml_implicit_resolvers: ClassVar[Any] = {None: [(PLAIN, re.compile(""))]}


def parse_value(text: str) -> Any:
    """The value behind `name:=`: a scalar, a list of scalars, or a mapping.

    Raises:
        RCLInvalidROSArgsError: it is not such YAML.
    """
    return _value(_compose(text))


def parse_document(text: str) -> Any:
    """A parameter file as nested dictionaries; None when it is empty.

    Raises:
        RCLInvalidROSArgsError: it is not such YAML.
    """
    node = _compose(text)
    return None if node is None else _value(node)


def typed_scalar(text: str) -> bool | int | float | str:
    """A scalar without quotes, as the first of bool, int and float that it fits, or as it is."""
    if text in TRUE or text in FALSE:
        return text in TRUE
    if INTEGER.match(text):
        digits = text.strip()
        bare = digits.lstrip("+-")
        octal = len(bare) > 1 and bare[0] == "0" and bare[1] not in "xX"
        number = int(digits, 8 if octal else 0)
        return number if -(2**63) <= number < 2**63 else float(number)
    if DECIMAL.match(text):
        return float(text)
    special = SPECIAL.match(text)
    return float(special[1] + special[2]) if special else text


def _compose(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=ScalarLoader)
    except yaml.YAMLError as error:
        raise RCLInvalidROSArgsError(f"not YAML: {error}") from error


def _value(node: yaml.Node | None) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        items = [_scalar(item) for item in node.value]
        if len({type(item) for item in items}) > 1:
            raise RCLInvalidROSArgsError(
                f"line {_line(node)}: the items of a list must have one type, but they are {items}",
                mend="write 1.0 for a number among decimal ones, and quotes around texts",
            )
        return items
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _value(value) for key, value in node.value}
    raise RCLInvalidROSArgsError("a value is missing")


def _scalar(node: Any) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        raise RCLInvalidROSArgsError(f"line {_line(node)}: a list in a list is no parameter")
    if node.tag != PLAIN:
        return str(node.value)
    if not node.value:
        raise RCLInvalidROSArgsError(f"line {_line(node)}: a value is missing")
    return typed_scalar(node.value)


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1
