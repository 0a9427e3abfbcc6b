"""Message classes by the names of their types."""

from __future__ import annotations

import importlib
from typing import Any


def message_class(type_name: str) -> Any:
    """The class of a message type, also of an action's feedback.

    Raises:
        ImportError, AttributeError: ROS does not have it here.
    """
    package, kind, name = type_name.split("/")
    module = importlib.import_module(f"{package}.{kind}")
    if kind == "action":
        return getattr(module, name.removesuffix("_FeedbackMessage")).Impl.FeedbackMessage
    return getattr(module, name)
