from __future__ import annotations

import subprocess
import sys

import pytest

from fastvla_core.errors import CheckpointError
from fastvla_core.models.registry import POLICIES, PRESETS, VISION_STEMS, Registry


@pytest.mark.parametrize("registry", [POLICIES, PRESETS, VISION_STEMS])
def test_every_name_leads_to_something(registry: Registry):
    assert registry.names()
    assert all(callable(registry.load(name)) for name in registry.names())


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(CheckpointError, match=r"policy type 'smolfla'; known: .*fastvla_flow"):
        POLICIES.load("smolfla")


def test_users_can_add_their_own():
    registry = Registry("thing", {})
    registry.register("path", "pathlib:Path")
    assert registry.load("path").__name__ == "Path"


def test_a_name_is_not_silently_given_another_meaning():
    registry = Registry("thing", {"path": "pathlib:Path"})
    registry.register("path", "pathlib:Path")
    with pytest.raises(ValueError, match="already stands for pathlib:Path"):
        registry.register("path", "pathlib:PurePath")


def test_a_target_without_class_is_refused():
    with pytest.raises(ValueError, match=r"package\.module:Class"):
        Registry("thing", {}).register("path", "pathlib.Path")


def test_looking_at_the_table_imports_no_torch():
    code = (
        "import sys; from fastvla_core.models.registry import POLICIES; POLICIES.names();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
