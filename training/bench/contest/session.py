"""The parent's side of a contender's process: orders with a deadline."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastvla_core.errors import FastVLAError
from training.bench.contest.job import Job

_ROOT = Path(__file__).parents[3]


class ContenderError(FastVLAError):
    """A contender cannot run here, or is not done in time; the message says why."""


class Session:
    """A running contender.

    Args:
        module: What the process runs; it calls `child.serve`.
        python: Its interpreter.
        environment: Added to this process's.
    Raises:
        ContenderError: the interpreter cannot be started.
    """

    def __init__(
        self,
        module: str,
        job: Job,
        *,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        threads = {"OMP_NUM_THREADS": str(job.threads), "MKL_NUM_THREADS": str(job.threads)}
        paths = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        # Other interpreters have packages of their own; the job is all that they need of ours.
        paths = paths if python == sys.executable else str(_ROOT)
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in `close`)
        try:
            self._process = subprocess.Popen(
                [python, "-m", module, job.to_json()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env={**os.environ, **threads, "PYTHONPATH": paths, **(environment or {})},
            )
        except OSError as error:
            self._errors.close()
            raise ContenderError(f"{python} cannot be started: {error}") from error
        self._replies: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ready(self, *, deadline_s: float) -> None:
        """Wait until it is built.

        Raises:
            ContenderError: it cannot be built, or not within that time.
        """
        self._reply(deadline_s, what="to be ready")

    def order(self, do: str, *, deadline_s: float, **arguments: Any) -> dict[str, Any]:
        """Have it do a command, and wait for the result.

        Raises:
            ContenderError: it failed, or took longer.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ContenderError(f"its process ended: {self._last_words()}") from error
        return self._reply(deadline_s, what=f"for '{do}'")

    def close(self) -> None:
        """End the process; nothing happens if that was done."""
        if self._errors.closed:
            return
        assert self._process.stdin is not None
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stdin.close()
        self._errors.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._replies.put(line)
        self._replies.put("")

    def _reply(self, deadline_s: float, *, what: str) -> dict[str, Any]:
        start = time.monotonic()
        try:
            line = self._replies.get(timeout=max(0.0, deadline_s))
        except queue.Empty:
            waited = time.monotonic() - start
            raise ContenderError(f"took more than {waited:.0f} s {what}") from None
        if not line:
            self._process.wait()
            raise ContenderError(f"its process ended: {self._last_words()}")
        reply = json.loads(line)
        if "error" in reply:
            raise ContenderError(reply["error"])
        return reply

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return lines[-1][:200] if lines else f"status {self._process.returncode}"
