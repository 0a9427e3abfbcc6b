"""Mutation runs take minutes: they are left out unless `-m` asks for them."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "mutation" in config.getoption("markexpr"):
        return
    left_out = [item for item in items if item.get_closest_marker("mutation") is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
