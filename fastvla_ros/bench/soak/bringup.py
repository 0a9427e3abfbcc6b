"""`fastvla bringup` in a process of its own, as a user starts it, or with fixed chunks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fastvla_core.errors import RosError
from fastvla_ros.bench.soak.proc import children, command_line

FIXED = "fixed"
_STOP_TIMEOUT_S = 40.0


class BringupProcess:
    """The processes of `fastvla bringup`; a context manager that stops them.

    Args:
        folder: Takes parameters, log and the black box's bags.
        policy: A checkpoint, or `fixed`: chunks that cost nothing and never end.
        parameters: By node.
    """

    def __init__(
        self,
        folder: Path,
        *,
        policy: str,
        parameters: Mapping[str, Mapping[str, Any]],
        arguments: Sequence[str] = (),
    ) -> None:
        self.log = folder / "bringup.log"
        file = folder / "parameters.yaml"
        values = {name: {"ros__parameters": dict(given)} for name, given in parameters.items()}
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        bringup = ["fastvla_core.cli", "bringup", "--checkpoint", policy]
        if policy == FIXED:
            bringup = ["fastvla_ros.bench.soak.fixed_bringup"]
        command = [sys.executable, "-m", *bringup]
        command += ["--params-file", str(file), "--log-level", "warn", *arguments]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=environment(folder), stdout=log, stderr=log, start_new_session=True
            )

    def __enter__(self) -> BringupProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def check(self) -> None:
        """See that it runs.

        Raises:
            RosError: it has ended; with its last words.
        """
        if self._process.poll() is not None:
            said = self.log.read_text(encoding="utf-8", errors="replace").strip()[-500:]
            raise RosError(f"fastvla bringup ended with {self._process.returncode}: {said}")

    def pids(self, *, expected: Sequence[str], timeout_s: float) -> dict[str, int]:
        """Every process by name: `bringup` has the nodes that share it.

        Raises:
            RosError: one of the `expected` nodes did not start.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self.check()
            found = {"bringup": self._process.pid}
            for pid in children(self._process.pid):
                words = command_line(pid)
                found |= {name: pid for name in expected if name in words}
            if set(expected) <= set(found):
                return found
            if time.monotonic() > deadline:
                raise RosError(f"of {', '.join(expected)} only {', '.join(found)} started")
            time.sleep(0.05)


def environment(folder: Path) -> dict[str, str]:
    """That of a child which finds this installation, and keeps its files in `folder`."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, "ROS_HOME": str(folder)}
