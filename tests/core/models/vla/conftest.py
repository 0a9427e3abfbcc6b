from __future__ import annotations

import functools

import pytest

from .tiny import Backbones, write_backbone


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Backbones:
    """A family's name to the folder of a tiny one."""
    return functools.partial(write_backbone, tmp_path_factory.mktemp("backbones"))
