"""The rule for parameter names."""

from __future__ import annotations

from typing import Literal

from fastvla_ros.embedded.rcl.exceptions import InvalidParameterException


def validate_parameter_name(name: str) -> Literal[True]:
    """Raise InvalidParameterException when the name is empty."""
    if not name:
        raise InvalidParameterException(name)
    return True
