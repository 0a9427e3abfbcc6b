"""The parameters of the black box: names, defaults, what they mean, and their check."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastvla_core.errors import RosError

_DECLARED: tuple[tuple[str, Any, str], ...] = (
    ("contract", "tabletop", "robot contract: a shipped name or a YAML file"),
    ("directory", "", "folder of the bags; empty is fastvla_black_box in $ROS_HOME or ~/.ros"),
    ("seconds", 30.0, "how far a bag reaches back [s]"),
    ("after_s", 1.0, "how long it goes on after the end [s]"),
    ("memory_mib", 512, "memory for the last seconds; pictures are thinned out beyond it [MiB]"),
    ("keep", 20, "how many bags are kept; the oldest gives way"),
    ("disk_mib", 4096, "how large all bags may be together [MiB]"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlackBoxParameters:
    """The values, checked; see the table above."""

    contract: str
    directory: Path
    seconds: float
    after_s: float
    memory_mib: int
    keep: int
    disk_mib: int


def declare_and_read(node: Any) -> BlackBoxParameters:
    """Declare every parameter, read-only, with its description.

    Raises:
        RosError: a value has a wrong type, or is not positive.
    """
    from rcl_interfaces.msg import ParameterDescriptor

    values = {}
    for name, default, description in _DECLARED:
        # ROS refuses 30 where 30.0 is meant, with a traceback; the check below says it in words.
        descriptor = ParameterDescriptor(
            description=description, dynamic_typing=True, read_only=True
        )
        values[name] = _checked(name, node.declare_parameter(name, default, descriptor).value)
    values["directory"] = Path(values["directory"] or default_directory()).expanduser()
    return BlackBoxParameters(**values)


def default_directory() -> Path:
    """Where ROS keeps what is not the user's own: beside its logs."""
    return Path(os.environ.get("ROS_HOME") or "~/.ros").expanduser() / "fastvla_black_box"


def _checked(name: str, value: Any) -> Any:
    kind = next(type(default) for known, default, _ in _DECLARED if known == name)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise RosError(
            f"black_box: parameter {name} is {value!r}", mend=f"its type is {kind.__name__}"
        )
    lowest = 0 if name == "after_s" else 1
    if kind is not str and not (math.isfinite(value) and value >= lowest):
        raise RosError(
            f"black_box: parameter {name} is {value}", mend=f"set it to {lowest} or more"
        )
    return value
