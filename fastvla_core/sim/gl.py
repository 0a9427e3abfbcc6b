"""Loads MuJoCo with a way to draw without a screen, and says what to install when there is none."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from fastvla_core.errors import DependencyError, SimError

_INSTALL_GL = (
    "apt install libegl1 (MUJOCO_GL=egl), or apt install libosmesa6 and set MUJOCO_GL=osmesa"
)


def load_mujoco() -> Any:
    """The `mujoco` module, told to draw through EGL unless `MUJOCO_GL` says otherwise.

    Raises:
        DependencyError: MuJoCo is not installed.
        SimError: MuJoCo cannot load the OpenGL library that `MUJOCO_GL` names.
    """
    # MuJoCo reads the variable once, while it is imported.
    if sys.platform == "linux" and "mujoco" not in sys.modules:
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        return importlib.import_module("mujoco")
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"the simulator needs '{error.name}', which is not installed",
            mend="pip install 'fastvla[sim]'",
        ) from error
    # PyOpenGL reports a missing libEGL as an AttributeError, a missing libOSMesa likewise.
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise no_graphics(error) from error


def no_graphics(cause: Exception) -> SimError:
    """The error for a machine on which no OpenGL context can be made."""
    backend = os.environ.get("MUJOCO_GL", "")
    return SimError(f"no OpenGL context with MUJOCO_GL={backend!r}: {cause}", mend=_INSTALL_GL)
