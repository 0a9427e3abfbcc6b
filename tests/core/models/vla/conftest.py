from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's name to the folder of a tiny one."""
    from .tiny import write_backbone

    return functools.partial(write_backbone, tmp_path_factory.mktemp("backbones"))
