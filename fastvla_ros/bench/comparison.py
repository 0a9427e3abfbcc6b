"""The embedded runtime beside real rclpy: the same programs, in turns, in one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fastvla_core.errors import DependencyError
from fastvla_ros.bench.processes import OtherLoad
from fastvla_ros.bench.runtimes import SETUP_VARIABLE, Runtime, find_runtimes
from fastvla_ros.bench.services import Calls, measure_calls
from fastvla_ros.bench.startup import Starts, measure_starts
from fastvla_ros.bench.summary import summarise, table
from fastvla_ros.bench.transport import Images, best_effort, measure_images, named
from fastvla_ros.demo.domain import keep_to_this_machine, reserve_domain
from fastvla_ros.embedded.wire.config import RMEM_MAX, RMEM_WANTED

_INSTALL_EMBEDDED = "pip install cyclonedds==11.0.1 'rosbags>=0.11.9,<0.12'"

Measure = Callable[[Runtime, Runtime], dict[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    images: Images
    calls: Calls
    starts: Starts

    @classmethod
    def lasting(cls, seconds: float) -> Plan:
        """A plan with `seconds` of images per run, and calls and starts in proportion."""
        images = Images()
        return cls(
            images=Images(frames=max(round(seconds * images.rate_hz), 1)),
            calls=Calls(calls=min(max(round(100 * seconds), 1), 2000)),
            starts=Starts(starts=min(max(round(seconds / 4), 1), 5)),
        )

    def measurements(self) -> dict[str, Measure]:
        """Name and function of each; the first of two runtimes serves or publishes."""
        loose = best_effort(self.images)
        return {
            named(self.images): lambda a, b: measure_images(a, b, self.images),
            named(loose): lambda a, b: measure_images(a, b, loose),
            "service round trip": lambda a, b: measure_calls(a, b, self.calls),
            "start to first message": lambda a, b: measure_starts(a, b, self.starts),
        }


def compare(plan: Plan, *, runs: int = 1) -> dict[str, Any]:
    """Measure every pair of runtimes `runs` times, in turns, on a domain of its own.

    Returns:
        `summary[measurement][pair][figure]` = median, min and max over the runs; `samples` has
        every run with the cores that the rest of the machine used meanwhile.
    Raises:
        DependencyError: neither runtime is installed.
        RosError: a process failed.
    """
    with reserve_domain() as domain:
        keep_to_this_machine(domain)
        runtimes = find_runtimes()
        if not runtimes:
            raise DependencyError("there is no ROS to measure", mend=_INSTALL_EMBEDDED)
        samples = [
            sample
            for run in range(runs)
            for name, measure in plan.measurements().items()
            for sample in _in_turns(name, measure, runtimes, run=run)
        ]
    limit = int(RMEM_MAX.read_text()) if RMEM_MAX.is_file() else None
    return {
        "runtimes": {runtime.name: dict(runtime.versions) for runtime in runtimes},
        "missing": None if len(runtimes) == 2 else _missing(runtimes[0]),
        "rmem_max": limit,
        "rmem_max_means": receive_buffer_note(limit),
        "runs": runs,
        "summary": summarise(samples),
        "samples": samples,
    }


def _in_turns(
    name: str, measure: Measure, runtimes: list[Runtime], *, run: int
) -> Iterator[dict[str, Any]]:
    for first in runtimes:
        for second in runtimes:
            load = OtherLoad()
            figures = measure(first, second)
            yield {
                "measurement": name,
                "pair": pair_name(first.name, second.name),
                "run": run,
                "figures": {key: round(float(value), 6) for key, value in figures.items()},
                "other_cores": load.cores(),
            }


def pair_name(first: str, second: str) -> str:
    """How two runtimes are called; the first publishes or serves."""
    return first if first == second else f"{first} to {second}"


def _missing(present: Runtime) -> str:
    if present.name == "embedded":
        return f"no rclpy here: {SETUP_VARIABLE}=/path/setup.bash names one to compare with"
    return f"no embedded runtime here: {_INSTALL_EMBEDDED}"


def receive_buffer_note(limit: int | None) -> str:
    """What the kernel's limit on receive buffers does to the numbers."""
    if limit is None:
        return "this system has no net.core.rmem_max"
    if limit >= RMEM_WANTED:
        return f"net.core.rmem_max is {limit}: receive buffers hold the images of several cameras"
    return (
        f"net.core.rmem_max is {limit} (stock Linux has 212992), less than one image of 640x480: "
        "best-effort images are lost, reliable ones are sent again, which p99 and max show; "
        f"sudo sysctl -w net.core.rmem_max={RMEM_WANTED} and measure again"
    )


def lines(report: dict[str, Any]) -> list[str]:
    """What `compare` found, to be printed."""
    runtimes = [
        f"{name}: " + ", ".join(f"{key} {value}" for key, value in versions.items() if value)
        for name, versions in report["runtimes"].items()
    ]
    busy = [x["other_cores"] for x in report["samples"] if x["other_cores"] is not None]
    notes = [report["missing"], report["rmem_max_means"]]
    if busy:
        notes.append(f"other processes used up to {max(busy):.1f} cores during a run")
    return ["", *runtimes, *filter(None, notes), *table(report["summary"])]
