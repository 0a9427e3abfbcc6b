"""Makes every check in turn; none may hang, and whatever breaks is a finding."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from fastvla_core.errors import FastVLAError
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.contract_file import load_contract
from fastvla_ros.doctor import clocks, machine, network, nodes, project, sensors, topics
from fastvla_ros.doctor.findings import Finding, error, ok
from fastvla_ros.doctor.graph import LiveGraph

Check: TypeAlias = Callable[[], Iterable[Finding]]
LiveCheck: TypeAlias = Callable[[LiveGraph, RobotContract], Iterable[Finding]]

# What follows a check that hangs still gets a moment.
_LEAST_S = 2.0

LIVE_CHECKS: tuple[LiveCheck, ...] = (
    nodes.check_duplicates,
    nodes.check_policy_server,
    nodes.check_guard,
    topics.check_publishers,
    topics.check_types,
    topics.check_qos,
    topics.check_rates,
    sensors.check_cameras,
    sensors.check_joints,
    clocks.check_sim_time,
    clocks.check_stamps,
    nodes.check_commands,
    nodes.check_gripper,
)
"""Functions of the live graph and the contract; each says what it finds, or that all is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to look at.

    Attributes:
        contract, checkpoint: Names or paths.
        namespace: Of the robot's nodes.
        listen_s: How long to listen to the robot, to measure rates [s].
        timeout_s: Bound of the whole examination [s].
    """

    contract: str = "tabletop"
    checkpoint: str = "nano"
    namespace: str = ""
    listen_s: float = 3.0
    timeout_s: float = 90.0


def examine(options: Options) -> Iterator[Finding]:
    """Look at the machine, the contract, the checkpoint and the running robot; as findings come."""
    deadline = time.monotonic() + options.timeout_s
    for name, check in _checks(options):
        yield from _run(name, check, limit_s=max(deadline - time.monotonic(), _LEAST_S))


def _checks(options: Options) -> tuple[tuple[str, Check], ...]:
    return (
        ("python", machine.check_python),
        ("torch", machine.check_torch),
        ("device", machine.check_device),
        ("packages", machine.check_packages),
        ("graphics", machine.check_graphics),
        ("disk", machine.check_disk),
        ("processor", machine.check_processor),
        ("ros", network.check_ros),
        ("discovery", network.check_discovery),
        ("network buffers", lambda: [network.network_buffers()]),
        ("contract", lambda: project.check_contract(options.contract)),
        ("checkpoint", lambda: project.check_checkpoint(options.checkpoint, options.contract)),
        ("robot", lambda: _check_robot(options)),
    )


def _check_robot(options: Options) -> Iterator[Finding]:
    from fastvla_ros.doctor.observing import observe

    contract = load_contract(options.contract)
    graph = observe(contract, namespace=options.namespace, listen_s=options.listen_s)
    yield from look_at(graph, contract)


def look_at(graph: LiveGraph, contract: RobotContract) -> Iterator[Finding]:
    """The findings about a live graph."""
    if not graph.nodes:
        where = f"nothing runs on domain {graph.domain} (discovery: {graph.discovery})"
        yield ok("robot", f"{where}; `fastvla bringup` starts it")
        return
    names = ", ".join(sorted(set(graph.nodes)))
    yield ok("robot", f"{len(graph.nodes)} nodes on domain {graph.domain}: {names}")
    for check in LIVE_CHECKS:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        yield from _guarded(name, lambda check=check: check(graph, contract))


def _run(name: str, check: Check, *, limit_s: float) -> list[Finding]:
    """The findings of one check, or that it hangs."""
    found: list[Finding] = []
    thread = threading.Thread(
        target=lambda: found.extend(_guarded(name, check)), name=f"doctor: {name}", daemon=True
    )
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        hangs = f"has not come to an end in {limit_s:.0f} s"
        return [error(name, hangs, mend="try again with a longer --timeout; report it if it stays")]
    return found


def _guarded(name: str, check: Check) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check())
    except FastVLAError as problem:
        found.append(error(name, problem.message, mend=problem.mend))
    # A doctor that falls ill himself helps nobody: whatever breaks is a finding.
    except Exception as problem:
        said = f"{type(problem).__name__}: {problem}"
        found.append(error(name, said, mend="this may be a defect: please report it"))
    return found
