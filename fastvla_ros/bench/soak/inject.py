"""Breaks one thing during a goal, and mends it afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable

from fastvla_ros.bench.soak.faults_ground import START_TIMEOUT_S, Ground
from fastvla_ros.bench.soak.plan import GoalPlan
from fastvla_ros.bench.soak.recording import Recording

# More than a picture may be old here, well within what the server waits for.
_LATE_S = 1.2
_JITTER_S = 0.02
# Discovery of what was started again, and the latched words of what was there before.
_SETTLE_S = 0.3
_COMPLAIN_S = 30.0


class Injection:
    """The fault of one goal: `prepare`, `begin` and `go_on` while it runs, `heal` after its end.

    Attributes:
        begun: Whether the fault has happened.
    """

    def __init__(self, plan: GoalPlan, ground: Ground) -> None:
        self._plan, self._ground = plan, ground
        self._verb, _, self._what = plan.fault.partition(" ")
        self.begun = False
        self._recording: Recording | None = None
        self._over_s = float("inf")
        self._over: Callable[[], None] = lambda: None
        self._said_before = 0

    def prepare(self) -> None:
        """What must run before the goal."""
        if "recorder" not in self._plan.fault:
            return
        ground, number = self._ground, self._plan.number
        full = self._plan.fault == "fill the recorder's disk"
        ground.recorder_disk.free()
        self._recording = Recording(
            ground.recorder_disk.path if full else ground.folder,
            logs=ground.folder,
            name=f"episode_{number}",
        )
        self._recording.wait_until_it_writes()

    def begin(self) -> None:
        """Break it."""
        plan, ground = self._plan, self._ground
        self.begun = True
        if self._verb == "kill" and self._what in ground.cell.nodes:
            ground.cell.nodes[self._what].kill()
        elif plan.fault == "kill the recorder" and self._recording is not None:
            self._recording.kill()
        elif self._verb == "restart":
            ground.cell.nodes[self._what].interrupt()
            ground.cell.start(self._what)
        elif plan.fault == "drop camera":
            ground.cameras[plan.camera].drop()
        elif plan.fault == "drop camera for a moment":
            ground.cameras[plan.camera].drop()
            self._later(plan.fault_s, ground.cameras[plan.camera].pass_on)
        elif plan.fault == "delay camera":
            ground.cameras[plan.camera].delay(_LATE_S, seed=plan.seed)
        elif plan.fault == "jitter camera":
            ground.cameras[plan.camera].delay(0.0, jitter_s=_JITTER_S, seed=plan.seed)
        elif plan.fault == "fill the black box's disk":
            self._said_before = len(self._box_says())
            ground.box_disk.fill()
        elif plan.fault == "fill the recorder's disk":
            ground.recorder_disk.fill()

    def go_on(self) -> None:
        """Called again and again while the goal runs."""
        if time.monotonic() >= self._over_s:
            self._over_s = float("inf")
            self._over()

    def heal(self) -> list[str]:
        """Mend it and wait until everything works; what was wrong, in words.

        Raises:
            RosError: a node does not come back.
        """
        plan, ground = self._plan, self._ground
        wrong = self._end_recording()
        for camera in ground.cameras.values():
            camera.pass_on()
        if plan.fault == "fill the black box's disk":
            wrong += self._wait_for_complaint()
            ground.box_disk.free()
        if self._what in ground.cell.nodes:
            healed_s = time.monotonic()
            if ground.cell.nodes[self._what].status is not None:
                ground.cell.start(self._what)
            ground.health.wait(ground.cell, since_s=healed_s, timeout_s=START_TIMEOUT_S)
            time.sleep(_SETTLE_S)
        return wrong

    def abandon(self) -> None:
        """End what was begun, when the goal did not come to its end."""
        if self._recording is not None:
            self._recording.close()
        for camera in self._ground.cameras.values():
            camera.pass_on()
        self._ground.box_disk.free()
        self._ground.recorder_disk.free()

    def _later(self, after_s: float, over: Callable[[], None]) -> None:
        self._over_s, self._over = time.monotonic() + after_s, over

    def _end_recording(self) -> list[str]:
        if self._recording is None:
            return []
        recording, self._recording = self._recording, None
        full = self._plan.fault == "fill the recorder's disk"
        wrong = recording.end_by_itself() if full else recording.look_at_remains()
        recording.close()
        self._ground.recorder_disk.free()
        return wrong

    def _wait_for_complaint(self) -> list[str]:
        # The goal ended with TIMEOUT, which is to be kept, and cannot.
        deadline = time.monotonic() + _COMPLAIN_S
        while time.monotonic() < deadline:
            new = self._box_says()[self._said_before :]
            if "no bag is kept" in new or "without pictures" in new:
                return []
            time.sleep(0.1)
        return ["the black box said nothing about its full disk"]

    def _box_says(self) -> str:
        log = self._ground.cell.nodes["black_box"].log
        return log.read_text(encoding="utf-8", errors="replace")
