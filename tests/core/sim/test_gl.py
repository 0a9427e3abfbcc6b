"""What a machine without MuJoCo or OpenGL is told."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fastvla_core.errors import DependencyError, SimError
from fastvla_core.sim.gl import load_mujoco

DRAW = "from fastvla_core.sim import TabletopSim; TabletopSim().render('front')"


def run_python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "DISPLAY")}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment | variables, text=True, capture_output=True,
        check=False,
    )  # fmt: skip


def test_importing_the_package_neither_loads_mujoco_nor_touches_the_environment() -> None:
    code = (
        "import os, sys, fastvla_core.sim; "
        "assert 'mujoco' not in sys.modules and 'MUJOCO_GL' not in os.environ"
    )
    assert run_python(code).returncode == 0


def test_a_user_s_choice_of_backend_is_respected() -> None:
    code = (
        "import os; from fastvla_core.sim.gl import load_mujoco; load_mujoco(); "
        "print(os.environ['MUJOCO_GL'])"
    )
    assert run_python(code, MUJOCO_GL="disabled").stdout.strip() == "disabled"
    assert run_python(code).stdout.strip() == "egl"


def test_a_missing_opengl_names_the_packages_to_install() -> None:
    # GLFW needs a display, and there is none.
    finished = run_python(DRAW, MUJOCO_GL="glfw")
    assert finished.returncode != 0
    assert "SimError" in finished.stderr
    assert "libegl1" in finished.stderr
    assert "libosmesa6" in finished.stderr


def test_a_missing_mujoco_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(DependencyError, match="mujoco"):
        load_mujoco()


def test_a_library_that_fails_to_load_is_a_sim_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise AttributeError("'NoneType' object has no attribute 'eglQueryString'")

    monkeypatch.setattr("fastvla_core.sim.gl.importlib.import_module", fail)
    with pytest.raises(SimError, match="eglQueryString"):
        load_mujoco()
