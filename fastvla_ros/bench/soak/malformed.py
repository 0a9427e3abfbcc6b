"""Thousands of malformed messages beside a running robot: no node ends, and goals still work."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from fastvla_core.errors import FastVLAError, RosError
from fastvla_ros.bench.processes import OtherLoad
from fastvla_ros.bench.soak.faults_ground import START_TIMEOUT_S, Ground, prepared
from fastvla_ros.bench.soak.fuzz import Fuzzer, Malformed
from fastvla_ros.bench.soak.proc import usage
from fastvla_ros.bench.soak.recording import Recording
from fastvla_ros.bench.soak.violations import Violations

if TYPE_CHECKING:
    from fastvla_ros.nodes.task_client import GoalReport

_CAMERA_HZ = 15.0
# Faster than a robot sends, slow enough that every message is looked at.
_PERIOD_S = 0.002
_LOOK_EVERY, _GOAL_EVERY = 100, 2_500
# What was sent is over, and every stream has good samples again.
_RECOVER_S = 1.5
_GOAL_S, _GOAL_COMMANDS, _GOAL_TRIES = 5.0, 20, 3
# How a goal ends that has no processor to run on; any other end is wrong on any machine.
_SLOW_ENDS = ("TIMEOUT", "STALE_SENSOR")
_TASK = "sway"


def run_malformed(*, messages: int, seed: int) -> tuple[dict[str, Any], Violations]:
    """Publish so many; Ctrl-C ends it early, with what was found until then.

    Raises:
        FastVLAError: the graph does not come up.
    """
    violations = Violations("malformed", seed=seed)
    with prepared(camera_hz=_CAMERA_HZ) as ground:
        run = _Run(ground, violations, seed=seed)
        recording = Recording(ground.folder, logs=ground.folder, name="beside")
        with recording:
            recording.wait_until_it_writes()
            with contextlib.suppress(KeyboardInterrupt):
                run.send(messages)
            for wrong in recording.stop():
                violations.add(wrong, where="recorder")
        return run.figures(), violations


class _Run:
    def __init__(self, ground: Ground, violations: Violations, *, seed: int) -> None:
        self._ground, self._violations = ground, violations
        self._fuzzer = Fuzzer(ground.operator.contract, seed=seed)
        self._publishers = _publishers(ground)
        self._sent: Counter[str] = Counter()
        self._goals: Counter[str] = Counter()
        self._starved = self._refused = 0

    def send(self, messages: int) -> None:
        """Send them all, and run a clean goal now and then and at the end."""
        sent = 0
        for number in itertools.count():
            if not self._publish(self._fuzzer.make(number)):
                continue
            sent += 1
            time.sleep(_PERIOD_S)
            if sent == messages or sent % _LOOK_EVERY == 0:
                self._look_after_nodes(number)
            if sent == messages or sent % _GOAL_EVERY == 0:
                self._goal(number)
            if sent == messages:
                return

    def figures(self) -> dict[str, Any]:
        """What was sent, and how the goals in between ended."""
        return {
            "messages": sum(self._sent.values()),
            "refused_by_the_sender": self._refused,
            "kinds": dict(sorted(self._sent.items())),
            "clean_goals": dict(self._goals),
            "starved": self._starved,
            "took_s": round(self._violations.elapsed_s, 1),
        }

    def _publish(self, malformed: Malformed) -> bool:
        try:
            self._publishers[malformed.stream].publish(malformed.message)
        # CycloneDDS sends no bytes that have not the structure of their type; nor would it pass
        # them on to whoever receives them.
        except RosError:
            self._refused += 1
            return False
        self._sent[malformed.what] += 1
        return True

    def _look_after_nodes(self, number: int) -> None:
        cell, first = self._ground.cell, max(0, number - _LOOK_EVERY + 1)
        since_s, ended = time.monotonic(), cell.ended()
        for node in ended:
            self._violations.add(
                f"{node.name} ended with {node.status}: {cell.last_words(node.name)}",
                where=f"messages {first} to {number}",
            )
            cell.start(node.name)
        if ended:
            self._ground.health.wait(cell, since_s=since_s, timeout_s=START_TIMEOUT_S)

    def _goal(self, number: int) -> None:
        where = f"a clean goal after message {number}"
        for _ in range(_GOAL_TRIES):
            time.sleep(_RECOVER_S)
            load = OtherLoad(self._nodes_cpu_s)
            try:
                report = self._ground.operator.client.execute(
                    _TASK, timeout_s=_GOAL_S, server_timeout_s=START_TIMEOUT_S
                )
            except FastVLAError as error:
                self._violations.add(str(error), where=where)
                return
            others = load.cores()
            if not is_starved(report, other_cores=others):
                break
            self._starved += 1
        else:
            return
        self._goals[report.error] += 1
        self._violations.expect(
            has_worked(report),
            f"ended with {report.error} ({report.message}) after {report.commands_sent} commands; "
            f"other processes used {others or 0.0:.1f} cores",
            where=where,
        )

    def _nodes_cpu_s(self) -> float:
        now_s = time.monotonic()
        return sum(usage(node.pid, at_s=now_s).cpu_s for node in self._ground.cell.nodes.values())


def has_worked(report: GoalReport) -> bool:
    """Whether a clean goal ran to its deadline, and moved the robot on the way."""
    return report.error == "TIMEOUT" and report.commands_sent >= _GOAL_COMMANDS


def is_starved(report: GoalReport, *, other_cores: float | None) -> bool:
    """Whether a goal that did not work had not enough of the machine, so that it says nothing.

    Args:
        other_cores: How many cores were used by others than this bench and its nodes: a node that
            takes all of the machine itself is no excuse.
    """
    busy = other_cores is not None and other_cores >= (os.cpu_count() or 1) / 2
    return busy and report.error in _SLOW_ENDS and not has_worked(report)


def _publishers(ground: Ground) -> dict[str, Any]:
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image, JointState

    contract, node = ground.operator.contract, ground.operator.node
    cameras = {
        camera.name: node.create_publisher(Image, camera.topic, qos_profile_sensor_data)
        for camera in contract.policy_cameras
    }
    joints = node.create_publisher(JointState, contract.joint_states.topic, 10)
    return {**cameras, "joint_states": joints}
