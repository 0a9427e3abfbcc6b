"""A goal session on a clock of its own: sensors that can fail, a policy that does as it is told."""

from __future__ import annotations

import threading
import time
from collections import deque

import numpy as np

from fastvla_core.runtime.engine import InferenceWorker
from fastvla_core.types import ActionChunk, Observation
from fastvla_ros.bridge.streams import StreamBridge
from fastvla_ros.nodes.goal_session import GoalSession
from fastvla_ros.nodes.goal_types import GoalEnd, GoalOptions, Instant, PathLatency, Tick
from tests.ros.bridge.messages import CONTRACT, MS, image, joint_state, picture

START_NS = 1_000_000 * MS
TICK_NS = round(1e9 / CONTRACT.control_rate_hz)
REST = np.array([0.1, 0.2, -0.3, 0.4, 0.5, 0.6, 0.02])


class ScriptedPolicy:
    """Targets that move every joint evenly; may raise, wait, or give a NaN."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.nan = False
        self.go_on = threading.Event()
        self.go_on.set()
        self.seeds: list[int] = []
        self.observations: list[Observation] = []

    def infer(self, observation: Observation) -> ActionChunk:
        self.observations.append(observation)
        assert self.go_on.wait(10)
        if self.error is not None:
            raise self.error
        steps = np.arange(1, 9)[:, None] * np.full(7, 0.01)
        positions = observation.state.astype(np.float64) + steps
        if self.nan:
            positions[3, 2] = np.nan
        return ActionChunk(
            stamp_ns=observation.stamp_ns,
            chunk_id=len(self.observations),
            names=CONTRACT.action_names,
            dt_s=0.1,
            positions=positions,
        )

    def reset(self, seed: int = 0) -> None:
        self.seeds.append(seed)


class Rig:
    """Drives one session tick by tick; the robot follows its commands at once.

    Attributes:
        silent, frozen: Streams that stop, cameras that repeat their picture.
        order: Of the joints in the joint states.
        periods: Ticks between two messages of a stream.
        joint_lag_ns: How late the joint states are stamped.
        ticks: Everything that the session asked for.
    """

    def __init__(self, **options) -> None:
        self.policy = ScriptedPolicy()
        self.worker = InferenceWorker(self.policy)
        self.bridge = StreamBridge(CONTRACT)
        self.path: deque[PathLatency] = deque(maxlen=100)
        self.options = GoalOptions(**{"timeout_s": 60.0, **options})
        self.silent: set[str] = set()
        self.frozen: set[str] = set()
        self.order = list(range(len(REST)))
        self.periods = {"joint_states": 1, "front": 1, "wrist": 1}
        self.joint_lag_ns = 0
        self.state = REST.copy()
        self.ros_ns = START_NS
        self.steady_ns = 5 * MS
        self.frame = 0
        self.ticks: list[Tick] = []
        self.start()

    def start(self, task: str = "pick") -> None:
        self.session = GoalSession(
            task,
            contract=CONTRACT,
            bridge=self.bridge,
            worker=self.worker,
            options=self.options,
            now=self.now,
            path=self.path,
        )

    def close(self) -> None:
        self.policy.go_on.set()
        assert self.worker.close()

    @property
    def now(self) -> Instant:
        return Instant(ros_ns=self.ros_ns, steady_ns=self.steady_ns)

    @property
    def commands(self):
        return [tick.command for tick in self.ticks if tick.command is not None]

    @property
    def feedback(self):
        return [tick.feedback for tick in self.ticks if tick.feedback is not None]

    @property
    def end(self) -> GoalEnd | None:
        return next((tick.end for tick in self.ticks if tick.end is not None), None)

    def sense(self) -> None:
        self.frame += 1
        if self._shows("joint_states"):
            message = joint_state(
                self.state[self.order],
                stamp_ns=self.ros_ns - self.joint_lag_ns,
                names=[CONTRACT.state_names[i] for i in self.order],
            )
            self.bridge.on_joint_state(message, receive_ns=self.ros_ns)
        for number, camera in enumerate(("front", "wrist")):
            if self._shows(camera):
                shown = number if camera in self.frozen else 2 * self.frame + number
                message = image(picture(shown), stamp_ns=self.ros_ns)
                self.bridge.on_image(camera, message, receive_ns=self.ros_ns)

    def _shows(self, stream: str) -> bool:
        return stream not in self.silent and self.frame % self.periods[stream] == 0

    def tick(self, count: int = 1, *, dt_ns: int = TICK_NS) -> Tick:
        """Sense, then one control tick, `count` times; stops at the end of the goal."""
        tick = Tick()
        for _ in range(count):
            self.ros_ns += dt_ns
            self.steady_ns += dt_ns
            self.sense()
            self.settle()
            tick = self.session.tick(self.now)
            self.ticks.append(tick)
            if tick.command is not None:
                self.state = tick.command.positions.copy()
                self.session.on_published(steady_ns=self.steady_ns)
            if tick.end is not None:
                break
        return tick

    def settle(self) -> None:
        """Wait until the worker is idle, unless the policy was told to wait."""
        end = time.monotonic() + 5
        while self.worker.busy and self.policy.go_on.is_set():
            assert time.monotonic() < end
            time.sleep(0.0002)
