"""Looks at processes now and then, and finds what grows."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastvla_ros.bench.soak.proc import Usage, usage
from fastvla_ros.bench.soak.violations import Violations

MAX_GROWTH_PERCENT = 1.0
# Medians of the first and the last part of a run, so that a bag that is just written or a
# collection of garbage that is due does not decide.
_WINDOW = 1 / 6
_ROWS = 30


class Monitor:
    """Samples processes in a thread of its own; a context manager.

    Args:
        pids: Name to process id.
        period_s: Between two looks; one costs about a millisecond per process.
    """

    def __init__(self, pids: Mapping[str, int], *, period_s: float) -> None:
        self._pids, self._period_s = dict(pids), period_s
        self.samples: dict[str, list[Usage]] = {name: [] for name in self._pids}
        self.ended: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def __enter__(self) -> Monitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            for name, pid in self._pids.items():
                self._look(name, pid)
            if self._stop.wait(self._period_s):
                return

    def _look(self, name: str, pid: int) -> None:
        try:
            self.samples[name].append(usage(pid, at_s=time.monotonic()))
        except OSError:
            self.ended.add(name)


def summary(samples: Sequence[Usage]) -> dict[str, Any]:
    """Memory, threads and descriptors in the first and the last sixth, and the share of a core."""
    count = max(1, round(len(samples) * _WINDOW))
    first, last = samples[:count], samples[-count:]
    passed_s = samples[-1].at_s - samples[0].at_s
    cpu_s = samples[-1].cpu_s - samples[0].cpu_s
    begin_mib, end_mib = _median(first, _rss_mib), _median(last, _rss_mib)
    return {
        "samples": len(samples),
        "rss_first_mib": round(begin_mib, 2),
        "rss_last_mib": round(end_mib, 2),
        "rss_lowest_first_mib": round(min(map(_rss_mib, first)), 2),
        "rss_lowest_last_mib": round(min(map(_rss_mib, last)), 2),
        "rss_peak_mib": round(max(map(_rss_mib, samples)), 2),
        "growth_percent": round(100 * (end_mib - begin_mib) / begin_mib, 3),
        "threads_first": _median(first, _threads),
        "threads_last": _median(last, _threads),
        "threads_most": max(map(_threads, samples)),
        "descriptors_first": _median(first, _descriptors),
        "descriptors_last": _median(last, _descriptors),
        "descriptors_most": max(map(_descriptors, samples)),
        "cpu_cores": round(cpu_s / passed_s, 4) if passed_s else 0.0,
        "series": _series(samples),
    }


def _series(samples: Sequence[Usage]) -> dict[str, list[float]]:
    """A few samples, evenly spread, to see how it went."""
    chosen = [samples[round(k * (len(samples) - 1) / _ROWS)] for k in range(_ROWS + 1)]
    return {
        "at_s": [round(sample.at_s - samples[0].at_s, 1) for sample in chosen],
        "rss_mib": [round(_rss_mib(sample), 2) for sample in chosen],
        "threads": [sample.threads for sample in chosen],
        "descriptors": [sample.descriptors for sample in chosen],
    }


def judge(processes: Mapping[str, Mapping[str, Any]], violations: Violations) -> None:
    """Note memory that grew, and threads or descriptors that became more."""
    for name, found in processes.items():
        growth = found["growth_percent"]
        violations.expect(
            growth < MAX_GROWTH_PERCENT,
            f"memory grew by {growth:.2f} % ({found['rss_first_mib']} to "
            f"{found['rss_last_mib']} MiB)",
            where=name,
        )
        for what in ("threads", "descriptors"):
            before, after = found[f"{what}_first"], found[f"{what}_last"]
            violations.expect(after <= before, f"{before:g} {what} became {after:g}", where=name)


def _median(samples: Sequence[Usage], value: Callable[[Usage], float]) -> float:
    return statistics.median(map(value, samples))


def _rss_mib(sample: Usage) -> float:
    return sample.rss_kib / 1024


def _threads(sample: Usage) -> int:
    return sample.threads


def _descriptors(sample: Usage) -> int:
    return sample.descriptors
