"""Live progress of a goal on one line of the terminal, or on a few lines of a log."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from fastvla_ros.nodes.task_client import Progress

_TERMINAL_PERIOD_S = 0.1
_LOG_PERIOD_S = 2.0


def describe(progress: Progress) -> str:
    """State, chunk, latency and age of the observation in words."""
    text = (
        f"{progress.elapsed_s:5.1f} s  {progress.state.lower():<15} chunk {progress.chunk_index:3d}"
        f"  inference {progress.inference_s * 1e3:4.0f} ms"
        f"  observation {progress.oldest_age_s * 1e3:3.0f} ms old"
    )
    return f"{text}  waits for {progress.blocking_stream}" if progress.blocking_stream else text


class ProgressLine:
    """Overwrites one line on a terminal; writes every two seconds into anything else."""

    def __init__(
        self, *, prefix: str = "", enabled: bool = True, stream: TextIO | None = None
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._prefix = prefix
        self._enabled = enabled
        self._terminal = self._stream.isatty()
        self._last_s = float("-inf")
        self._open = False

    def show(self, progress: Progress) -> None:
        """Show the latest progress, unless the line was written a moment ago."""
        now = time.monotonic()
        period_s = _TERMINAL_PERIOD_S if self._terminal else _LOG_PERIOD_S
        if not self._enabled or now - self._last_s < period_s:
            return
        self._last_s = now
        text = self._prefix + describe(progress)
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\x1b[2K{text[:width]}")
            self._open = True
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def end(self) -> None:
        """Leave the line, so that what follows starts on a new one."""
        if self._open:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
            self._open = False
