"""Programs of the bench in processes of their own, and what the rest of the machine did then."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from fastvla_core.errors import RosError
from fastvla_ros.bench.runtimes import Runtime

_DISCOVERY = ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY")
_STAT = Path("/proc/stat")
_STOP_TIMEOUT_S = 10.0
# proc(5): idle and iowait are the fourth and fifth number of the first line.
_IDLE = slice(3, 5)


class Peer:
    """One running program."""

    def __init__(self, runtime: Runtime, program: str, settings: dict[str, Any]) -> None:
        self._what = f"'{program}' on {runtime.name}"
        self._errors: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        # The domain of the environment now, not of the one that was when ROS was sourced.
        discovery = {name: os.environ[name] for name in _DISCOVERY if name in os.environ}
        # As on a robot: the second start of a program does not compile it again.
        kept = {k: v for k, v in runtime.environment.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self.started_ns = time.monotonic_ns()
        self._process = subprocess.Popen(
            runtime.command(program, json.dumps(settings)),
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**kept, **discovery},
        )

    def report(self, *, timeout_s: float) -> dict[str, Any]:
        """What the program printed at its end.

        Raises:
            RosError: it failed, or did not end in time.
        """
        try:
            output = self._process.communicate(timeout=timeout_s)[0]
        except subprocess.TimeoutExpired as error:
            raise self._failed(f"did not end within {timeout_s:.0f} s") from error
        if self._process.returncode != 0:
            raise self._failed(f"ended with status {self._process.returncode}")
        return json.loads(output.splitlines()[-1])

    def close(self) -> None:
        """End the program if it runs; one that does not listen is killed."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.communicate(timeout=_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()
        self._errors.close()

    def _failed(self, how: str) -> RosError:
        self._errors.seek(0)
        said = self._errors.read().strip()[-500:]
        return RosError(f"the bench's program {self._what} {how}: {said}")


@contextlib.contextmanager
def running(runtime: Runtime, program: str, **settings: Any) -> Iterator[Peer]:
    """A program that ends with the block at the latest."""
    peer = Peer(runtime, program, settings)
    try:
        yield peer
    finally:
        peer.close()


class OtherLoad:
    """How many cores the rest of the machine used; ours are this process and ended children.

    Args:
        also_ours_s: The processor time of further processes of ours [s].
    """

    def __init__(self, also_ours_s: Callable[[], float] = lambda: 0.0) -> None:
        self._also_ours_s = also_ours_s
        self._start_s = time.monotonic()
        self._busy_s, self._own_s = _busy_s(), self._ours_s()

    def cores(self) -> float | None:
        """Since it was made; None where there is no /proc/stat."""
        if self._busy_s is None:
            return None
        others_s = (_busy_s() or 0.0) - self._busy_s - (self._ours_s() - self._own_s)
        return max(others_s, 0.0) / (time.monotonic() - self._start_s)

    def _ours_s(self) -> float:
        return _own_s() + self._also_ours_s()


def _busy_s() -> float | None:
    if not _STAT.is_file():
        return None
    ticks = [int(x) for x in _STAT.read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - sum(ticks[_IDLE])) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(x.ru_utime + x.ru_stime for x in used)
