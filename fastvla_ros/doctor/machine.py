"""The machine itself: Python, torch, GPU, graphics, packages, disk, processor."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from fastvla_ros.doctor.findings import Finding, error, ok, warning

PACKAGES = (
    "fastvla", "torch", "triton", "transformers", "numpy", "mujoco", "rosbags", "mcap",
    "cyclonedds", "bitsandbytes",
)  # fmt: skip
"""What a report of a problem should name."""

_TORCH = (2, 6)
_GL_TIMEOUT_S = 60.0
_DRAW = "from fastvla_core.sim import TabletopSim; print(TabletopSim().render('front').mean() > 0)"
_DRIVER = Path("/proc/driver/nvidia/version")
_GOVERNORS = Path("/sys/devices/system/cpu")
_LITTLE_DISK_GIB = 5.0
_LITTLE_VRAM_GIB = 2.0


def check_python() -> Iterator[Finding]:
    """A version that is tested."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    detail = f"{version} ({sys.executable})"
    if (3, 10) <= sys.version_info[:2] <= (3, 13):
        yield ok("python", detail)
    else:
        yield error("python", detail, mend="use Python 3.10 to 3.13")


def check_torch() -> Iterator[Finding]:
    """There, and new enough."""
    mend = "pip install 'torch>=2.6'"
    try:
        import torch
    except ImportError as problem:
        yield error("torch", str(problem), mend=mend)
        return
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _TORCH:
        yield error("torch", torch.__version__, mend=mend)
    else:
        yield ok("torch", f"{torch.__version__}, {torch.get_num_threads()} threads")


def check_device() -> Iterator[Finding]:
    """The GPU, its driver and its free memory; none is fine, too."""
    import torch

    if torch.cuda.is_available():
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info())
        detail = f"{torch.cuda.get_device_name()}, driver {driver_version()}, CUDA "
        detail += f"{torch.version.cuda}, {free:.1f} of {total:.1f} GiB free"
        if free < _LITTLE_VRAM_GIB:
            mend = "`nvidia-smi` shows what uses it; end it, or choose quantization nf4"
            yield warning("device", detail, mend=mend)
        else:
            yield ok("device", detail)
    elif _DRIVER.exists():
        what = "there is an NVIDIA GPU, but this torch cannot use it"
        mend = "install the CUDA build of torch, and a driver that is new enough for it"
        yield warning("device", f"{what} (driver {driver_version()})", mend=mend)
    else:
        yield ok("device", f"CPU, {os.cpu_count()} cores (no GPU)")


def driver_version() -> str:
    """Of the NVIDIA kernel module."""
    try:
        words = _DRIVER.read_text().split()
    except OSError:
        return "unknown"
    return next((word for word in words if word.replace(".", "").isdigit()), "unknown")


def check_packages() -> Iterator[Finding]:
    """Versions; and Triton where a GPU would use it."""
    import torch

    versions = {name: version_of(name) for name in PACKAGES}
    detail = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if torch.cuda.is_available() and not versions["triton"]:
        yield warning("packages", detail, mend="pip install triton, for the fast kernels")
    else:
        yield ok("packages", detail)


def version_of(name: str) -> str:
    """Of an installed distribution; "" when there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def check_graphics() -> Iterator[Finding]:
    """Whether MuJoCo can draw; in a process of its own, because a broken driver crashes."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        result = subprocess.run(
            [sys.executable, "-c", _DRAW], capture_output=True, text=True, timeout=_GL_TIMEOUT_S,
            env=environment, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        result = None
    if result is not None and result.returncode == 0 and "True" in result.stdout:
        yield ok("graphics", f"MuJoCo draws through {os.environ.get('MUJOCO_GL', 'egl')}")
        return
    said = (result.stderr.strip().splitlines() if result else []) or ["it hangs or crashes"]
    yield error(
        "graphics",
        f"MuJoCo cannot draw the simulated robot: {said[-1]}",
        mend="apt install libegl1 libgl1-mesa-dri, or apt install libosmesa6 and MUJOCO_GL=osmesa",
    )


def check_disk() -> Iterator[Finding]:
    """Room for recordings: here, and where the black box keeps its bags."""
    from fastvla_ros.nodes.black_box_parameters import default_directory

    places = {_existing(Path.cwd()), _existing(default_directory())}
    free_gib = {place: shutil.disk_usage(place).free / 2**30 for place in sorted(places)}
    detail = ", ".join(f"{place}: {free:.1f} GiB free" for place, free in free_gib.items())
    if min(free_gib.values()) < _LITTLE_DISK_GIB:
        mend = "make room: three cameras fill 5 GiB in a minute (raw, 640x480, 30 Hz)"
        yield warning("disk", detail, mend=mend)
    else:
        yield ok("disk", detail)


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())


def check_processor() -> Iterator[Finding]:
    """A governor that clocks the processor down makes a control loop late."""
    files = sorted(_GOVERNORS.glob("cpu[0-9]*/cpufreq/scaling_governor"))
    governors = {file.read_text().strip() for file in files}
    detail = f"{os.cpu_count()} cores, governor {', '.join(sorted(governors)) or 'not shown'}"
    if governors & {"powersave", "conservative"}:
        mend = "sudo cpupower frequency-set -g performance"
        yield warning("processor", f"{detail}: it wakes up slowly", mend=mend)
    else:
        yield ok("processor", detail)
