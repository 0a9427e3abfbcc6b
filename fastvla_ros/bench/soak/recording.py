"""`fastvla record` beside the robot: a recorder whose disk is full, and one that is killed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from fastvla_core.bags.writer import PARTIAL_SUFFIX
from fastvla_core.errors import BagError
from fastvla_ros.bench.soak.bags import Readable, read_to_the_end
from fastvla_ros.bench.soak.bringup import environment
from fastvla_ros.bench.soak.goals import wait_for

# A bag of hundreds of MiB is on the disk, and not only on its way there, when the recorder ends.
_START_S, _END_S = 60.0, 180.0
# What was heard half a second before the end is safe; a busy machine flushes later.
_UNSAFE_NS = 1_500_000_000
_KEPT = re.compile(r"(\d+) messages are kept")


class Recording:
    """One recorder's process and its bag; a context manager that ends it."""

    def __init__(self, folder: Path, *, logs: Path, name: str) -> None:
        self.bag = folder / name
        self._killed_ns = 0
        self._log = logs / f"{name}.log"
        command = [sys.executable, "-m", "fastvla_core.cli", "record", "--task", "sway"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--out", str(self.bag)],
                env=environment(logs), stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, and remove what it wrote."""
        self._process.kill()
        self._process.wait()
        for folder in (self.bag, self._partial):
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def said(self) -> str:
        """Everything that it printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_until_it_writes(self) -> None:
        """Until a file of it has content.

        Raises:
            RosError: it has not begun, or has ended.
        """
        wait_for(self._writes, timeout_s=_START_S, what="the recorder's first messages")

    def _writes(self) -> bool:
        files = (*self.bag.glob("*.mcap"), *self._partial.glob("*.mcap"))
        return self._process.poll() is not None or any(f.stat().st_size > 4096 for f in files)

    def end_by_itself(self) -> list[str]:
        """Wait for its end on a full disk; what is wrong with that, in words."""
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return [f"the recorder went on for {_END_S:g} s on a full disk"]
        wrong = []
        if status != 1 or self.said.count("the disk is full") != 1 or "Traceback" in self.said:
            wrong.append(f"the recorder ended with {status}: {self.said[-300:]}")
        found, trouble = self._read(self.bag)
        kept = _KEPT.search(self.said)
        if found is not None and not found.is_whole:
            wrong.append(f"its bag is not whole: {found}")
        if found is not None and (kept is None or found.messages != int(kept[1])):
            wrong.append(f"it says {kept and kept[1]} are kept, {found.messages} can be read")
        return wrong + trouble

    def stop(self) -> list[str]:
        """SIGTERM, which ends it also where Ctrl-C does not; what is wrong with its bag."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return [f"the recorder has not ended {_END_S:g} s after SIGTERM"]
        wrong = [] if status == 0 else [f"the recorder ended with {status}: {self.said[-300:]}"]
        found, trouble = self._read(self.bag)
        if found is not None and not found.is_whole:
            wrong.append(f"its bag is not whole: {found}")
        return wrong + trouble

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()
        self._killed_ns = time.time_ns()

    def look_at_remains(self) -> list[str]:
        """What is wrong with what it left when it was killed, in words."""
        found, trouble = self._read(self._partial)
        if found is not None and found.last_ns < self._killed_ns - _UNSAFE_NS:
            lost_s = (self._killed_ns - found.last_ns) * 1e-9
            trouble.append(f"the last {lost_s:.2f} s before it was killed cannot be read")
        return trouble

    @property
    def _partial(self) -> Path:
        return self.bag.with_name(self.bag.name + PARTIAL_SUFFIX)

    def _read(self, path: Path) -> tuple[Readable | None, list[str]]:
        try:
            return read_to_the_end(path), []
        except BagError as error:
            return None, [f"its bag cannot be read: {error.message}"]
