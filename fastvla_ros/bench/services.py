"""The round trip of a service call between two processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastvla_ros.bench.processes import running
from fastvla_ros.bench.runtimes import Runtime
from fastvla_ros.bench.transport import percentiles

_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """How often the service is called, one call after the other."""

    calls: int = 2000
    warm_up: int = 100


def measure_calls(server: Runtime, client: Runtime, calls: Calls) -> dict[str, float]:
    """Call `std_srvs/Trigger`; round trips [ms] from the request's making to the result.

    Raises:
        RosError: a process failed, or an answer did not come.
    """
    with (
        running(server, "echo_server"),
        running(
            client, "echo_client", calls=calls.calls, warm_up=calls.warm_up, timeout_s=_TIMEOUT_S
        ) as caller,
    ):
        report = caller.report(timeout_s=2 * _TIMEOUT_S)
    return percentiles(np.array(report["trips_ns"]) / 1e6, unit="ms")
