"""A robot cell of which any node can be killed and started again: each is a process of its own.

`ros2 launch` starts them like this. Both ways of bringing the nodes up stop everything when one
ends; here the others must show what they do without it, so the bench starts it again.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastvla_ros.bench.pipeline import without_model
from fastvla_ros.bench.soak.bringup import environment
from fastvla_ros.bringup_description import BringupOptions, NodeSpec, describe, ros_arguments

_STOP_TIMEOUT_S = 20.0


class NodeChild:
    """One node's process."""

    def __init__(self, spec: NodeSpec, *, folder: Path) -> None:
        self.name = spec.name
        self.log = folder / f"{spec.name}.log"
        command = [sys.executable, "-m", "fastvla_ros.bench.soak.child", str(os.getpid())]
        command += [spec.module, spec.class_name, *ros_arguments(spec, log_level="info")]
        self.started_s = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment(folder), stdout=log, stderr=log, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """SIGKILL; it is gone when this returns."""
        self._process.kill()
        self._process.wait()

    def interrupt(self) -> int:
        """SIGINT, as Ctrl-C; returns the exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.wait()


class Cell:
    """Guard, simulated robot, policy server (with fixed chunks) and black box; a context manager.

    The policy of fixed chunks moves from the first tick to the last, whatever the pictures show,
    and a killed server is back in a second: how goals end does not depend on the model.

    Args:
        folder: Takes the logs.
        contract: The robot's.
        parameters: By node.
        remappings: Of topics, by node.
    """

    def __init__(
        self,
        folder: Path,
        *,
        contract: Path,
        parameters: Mapping[str, Mapping[str, Any]],
        remappings: Mapping[str, tuple[tuple[str, str], ...]],
    ) -> None:
        options = BringupOptions(checkpoint="fixed chunks", contract=str(contract))
        self._folder = folder
        self._specs = {
            spec.name: dataclasses.replace(
                without_model(spec),
                parameters={**spec.parameters, **parameters.get(spec.name, {})},
                remappings=remappings.get(spec.name, ()),
            )
            for spec in describe(options)
        }
        self.nodes: dict[str, NodeChild] = {}

    def __enter__(self) -> Cell:
        for name in self._specs:
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        # The guard, which came first, stops last.
        for node in reversed(list(self.nodes.values())):
            node.interrupt()

    def start(self, name: str) -> None:
        """Start a node that does not run."""
        self.nodes[name] = NodeChild(self._specs[name], folder=self._folder)

    def ended(self) -> list[NodeChild]:
        """The nodes that do not run."""
        return [node for node in self.nodes.values() if node.status is not None]

    def last_words(self, name: str) -> str:
        """The end of a node's log."""
        return self.nodes[name].log.read_text(encoding="utf-8", errors="replace")[-800:].strip()
