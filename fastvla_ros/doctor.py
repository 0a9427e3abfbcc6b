"""Looks at everything that a run depends on, and says how to mend what is wrong."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastvla_core.errors import FastVLAError

Level = Literal["ok", "warning", "error"]

_RMEM_MAX = Path("/proc/sys/net/core/rmem_max")
# Three 640x480 cameras between two processes need this much, measured.
_RMEM_WANTED = 4 * 1024 * 1024
_GL_TIMEOUT_S = 60.0
_DRAW = "from fastvla_core.sim import TabletopSim; print(TabletopSim().render('front').mean() > 0)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was looked at, how it stands, and how to mend it."""

    name: str
    level: Level
    detail: str
    mend: str = ""


def examine(*, contract: str, checkpoint: str) -> Iterator[Finding]:
    """Look at the machine, the robot contract and the checkpoint, one finding at a time."""
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("python", _python),
        ("torch", _torch),
        ("device", _device),
        ("triton", _triton),
        ("graphics", _graphics),
        ("ros", _ros),
        ("network buffers", network_buffers),
        ("contract", lambda: _contract(contract)),
        ("checkpoint", lambda: _checkpoint(checkpoint, contract)),
    )
    for name, check in checks:
        try:
            yield check()
        except FastVLAError as error:
            yield Finding(name=name, level="error", detail=error.message, mend=error.mend)
        # A doctor that falls ill himself helps nobody: whatever breaks is a finding.
        except Exception as error:
            yield Finding(name=name, level="error", detail=f"{type(error).__name__}: {error}")


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    known = (3, 10) <= sys.version_info[:2] <= (3, 13)
    return Finding(
        name="python",
        level="ok" if known else "error",
        detail=f"{version} ({sys.executable})",
        mend="" if known else "use Python 3.10 to 3.13",
    )


def _torch() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding(
            name="torch", level="error", detail=f"{error}", mend="pip install 'torch>=2.6'"
        )
    old = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6)
    return Finding(
        name="torch",
        level="error" if old else "ok",
        detail=f"{torch.__version__}, {torch.get_num_threads()} threads",
        mend="pip install 'torch>=2.6'" if old else "",
    )


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        memory_gib = torch.cuda.get_device_properties(0).total_memory / 2**30
        detail = f"{torch.cuda.get_device_name()}, {memory_gib:.0f} GiB"
        return Finding(name="device", level="ok", detail=detail)
    if Path("/dev/nvidiactl").exists():
        return Finding(
            name="device",
            level="warning",
            detail="there is an NVIDIA GPU, but this torch cannot use it",
            mend="install the CUDA build of torch, and a driver that is new enough for it",
        )
    return Finding(name="device", level="ok", detail=f"CPU, {os.cpu_count()} cores (no GPU)")


def _triton() -> Finding:
    import torch

    needed = torch.cuda.is_available()
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return Finding(
            name="triton",
            level="warning" if needed else "ok",
            detail="not installed" + ("" if needed else " (only used on a GPU)"),
            mend="pip install triton, for the fast kernels" if needed else "",
        )
    detail = version if needed else f"{version} (only used on a GPU)"
    return Finding(name="triton", level="ok", detail=detail)


def _graphics() -> Finding:
    # In a process of its own: a broken driver does not raise, it crashes.
    try:
        result = subprocess.run(
            [sys.executable, "-c", _DRAW], capture_output=True, text=True, timeout=_GL_TIMEOUT_S,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        result = None
    if result is not None and result.returncode == 0 and "True" in result.stdout:
        backend = os.environ.get("MUJOCO_GL", "egl")
        return Finding(name="graphics", level="ok", detail=f"MuJoCo draws through {backend}")
    said = (result.stderr.strip().splitlines() if result else []) or ["it hangs or crashes"]
    return Finding(
        name="graphics",
        level="error",
        detail=f"MuJoCo cannot draw the simulated robot: {said[-1]}",
        mend="apt install libegl1 libgl1-mesa-dri, or apt install libosmesa6 and MUJOCO_GL=osmesa",
    )


def _ros() -> Finding:
    from fastvla_ros.runtime import ensure_ros, uses_embedded_ros

    ensure_ros()
    from rclpy.utilities import get_rmw_implementation_identifier

    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    rmw = get_rmw_implementation_identifier()
    real = f"rclpy of ROS 2 {os.environ.get('ROS_DISTRO', '')}".strip()
    kind = "embedded runtime (rclpy is not installed)" if uses_embedded_ros() else real
    detail = f"{kind}, {rmw}, domain {domain}"
    if rmw == "rmw_cyclonedds_cpp":
        return Finding(name="ros", level="ok", detail=detail)
    return Finding(
        name="ros",
        level="warning",
        detail=f"{detail}; services and actions do not cross from one vendor to another",
        mend="export RMW_IMPLEMENTATION=rmw_cyclonedds_cpp on every machine of this robot",
    )


def network_buffers() -> Finding:
    """Whether the kernel lets images through between processes (`net.core.rmem_max`)."""
    if not _RMEM_MAX.exists():
        return Finding(name="network buffers", level="ok", detail="unknown on this system")
    size = int(_RMEM_MAX.read_text())
    if size >= _RMEM_WANTED:
        return Finding(name="network buffers", level="ok", detail=f"rmem_max = {size}")
    return Finding(
        name="network buffers",
        level="warning",
        detail=f"net.core.rmem_max = {size}: images get lost between processes",
        mend=f"sudo sysctl -w net.core.rmem_max={_RMEM_WANTED} (and in /etc/sysctl.d to keep it)",
    )


def _contract(name: str) -> Finding:
    from fastvla_core.robot.contract_file import load_contract

    contract = load_contract(name)
    cameras = ", ".join(camera.name for camera in contract.cameras)
    detail = f"'{contract.name}': {len(contract.joints)} joints, cameras {cameras}"
    return Finding(name="contract", level="ok", detail=detail)


def _checkpoint(checkpoint: str, contract: str) -> Finding:
    from fastvla_core.models.hub import find_checkpoint
    from fastvla_core.policy import FastVLA
    from fastvla_core.robot.contract_file import load_contract

    folder = find_checkpoint(checkpoint)
    policy = FastVLA.from_pretrained(folder, contract=load_contract(contract))
    millions = sum(p.numel() for p in policy.model.parameters()) / 1e6
    return Finding(
        name="checkpoint",
        level="ok",
        detail=f"{folder}: {millions:.1f} M parameters, for this robot",
    )
