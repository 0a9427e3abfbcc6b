"""Where the bench's programs can run: the embedded runtime, and a real rclpy if there is one."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fastvla_core.errors import RosError
from fastvla_ros.embedded.wire.config import LOOPBACK

SETUP_VARIABLE = "FASTVLA_ROS2_SETUP"
EMBEDDED, REAL = "embedded", "rclpy"
_EMBEDDED_PACKAGES = ("cyclonedds", "rosbags")
_ROOT = Path(__file__).resolve().parents[2]

# What the embedded runtime gives its own participant, so that the two differ in themselves only.
SAME_WIRE = f'<CycloneDDS><Domain id="any">{LOOPBACK}</Domain></CycloneDDS>'

_QUESTION = """
import importlib.metadata, json, os, platform, rclpy.utilities
print(json.dumps({
    "version": importlib.metadata.version("rclpy"),
    "rmw": rclpy.utilities.get_rmw_implementation_identifier(),
    "distro": os.environ.get("ROS_DISTRO", ""),
    "python": platform.python_version(),
}))
"""


@dataclass(frozen=True, slots=True)
class Runtime:
    """A Python and an environment in which one of the two runtimes works."""

    name: str
    python: str
    environment: Mapping[str, str]
    versions: Mapping[str, str]

    def command(self, program: str, settings: str) -> list[str]:
        """The command line of one of `fastvla_ros.bench.peers`."""
        return [self.python, "-m", "fastvla_ros.bench.peers", self.name, program, settings]


def find_runtimes() -> list[Runtime]:
    """The runtimes of this machine, the embedded one first.

    Raises:
        RosError: the script that FASTVLA_ROS2_SETUP names gives no rclpy.
    """
    return [runtime for runtime in (_embedded(), _real()) if runtime is not None]


def _embedded() -> Runtime | None:
    if not all(map(importlib.util.find_spec, _EMBEDDED_PACKAGES)):
        return None
    versions = {name: metadata.version(name) for name in _EMBEDDED_PACKAGES}
    return Runtime(EMBEDDED, sys.executable, _with_root(os.environ), versions)


def _real() -> Runtime | None:
    setup = os.environ.get(SETUP_VARIABLE, "")
    if setup:
        return _describe("python3", sourced(Path(setup)))
    return _describe(sys.executable, os.environ) if _rclpy_is_installed() else None


def _rclpy_is_installed() -> bool:
    imported = sys.modules.get(REAL)
    # The embedded subset stands there under this name too, but keeps its own.
    if imported is not None:
        return imported.__name__ == REAL
    return importlib.util.find_spec(REAL) is not None


def sourced(setup: Path) -> dict[str, str]:
    """The environment after sourcing a script.

    Raises:
        RosError: bash cannot source it.
    """
    done = subprocess.run(
        ["bash", "-c", f"set -e; . {shlex.quote(str(setup))} >&2; env -0"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RosError(
            f"{SETUP_VARIABLE}={setup} cannot be sourced: {done.stderr.strip()[-300:]}",
            mend="name the setup.bash of a ROS 2 installation, or unset it",
        )
    return dict(item.split("=", 1) for item in done.stdout.split("\0") if "=" in item)


def _describe(python: str, environment: Mapping[str, str]) -> Runtime:
    environment = _with_root(environment) | {"CYCLONEDDS_URI": SAME_WIRE}
    done = subprocess.run(
        [python, "-c", _QUESTION], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RosError(
            f"no rclpy to compare with: {done.stderr.strip()[-300:]}",
            mend=f"use the Python that this ROS 2 was built for, or unset {SETUP_VARIABLE}",
        )
    return Runtime(REAL, python, environment, json.loads(done.stdout))


def _with_root(environment: Mapping[str, str]) -> dict[str, str]:
    """So that the programs are found by a Python that FastVLA is not installed in."""
    path = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), str(_ROOT)]))
    return {**environment, "PYTHONPATH": path}
