"""Loads MuJoCo with a way to draw without a screen, and says what to install when there is none."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import os
import sys
from pathlib import Path
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
    _load_triton_before_mesa()
    # MuJoCo reads the variable once, while it is imported.
    if sys.platform == "linux" and "mujoco" not in sys.modules:
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        return importlib.import_module("mujoco")
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"the simulator needs '{error.name}', which is not installed",
            mend="pip install mujoco",
        ) from error
    # PyOpenGL reports a missing libEGL as an AttributeError, a missing libOSMesa likewise.
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise no_graphics(error) from error


def _load_triton_before_mesa() -> None:
    """Triton and Mesa's software OpenGL each bring an LLVM: loaded after Mesa's, Triton's crashes
    the process (measured with triton 3.7 and Mesa 22). The other way round both work."""
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None or "triton" in sys.modules:
        return
    for library in Path(spec.origin).parent.glob("_C/libtriton*.so"):
        # A library that cannot be loaded here cannot crash either; `import triton` will say why.
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(library))


def no_graphics(cause: Exception) -> SimError:
    """The error for a machine on which no OpenGL context can be made."""
    backend = os.environ.get("MUJOCO_GL", "")
    return SimError(f"no OpenGL context with MUJOCO_GL={backend!r}: {cause}", mend=_INSTALL_GL)
