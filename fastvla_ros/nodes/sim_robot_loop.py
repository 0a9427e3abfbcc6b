"""The simulated robot in real time: one thread owns physics, cameras and the judge."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import SimError
from fastvla_core.robot.contract import RobotContract
from fastvla_core.sim import Outcome, TabletopSim, TaskMonitor, parse_instruction
from fastvla_core.sim.sim import ACTION_NAMES
from fastvla_ros.nodes.sim_robot_drive import SimDrive

T = TypeVar("T")

DEPTH_SUFFIX = "_depth"
"""A depth camera has the name of the simulated camera that it looks through, and this."""

# Later than this behind the clock, the simulation lets time go by instead of hurrying after it.
_MAX_LAG_NS = 100_000_000
# The success tests count in action steps, live as in `fastvla eval`.
_JUDGE_PERIOD_NS = 100_000_000

_VERDICTS = {
    Outcome.SUCCESS: (True, "measured by the simulator"),
    Outcome.WRONG_OBJECT: (False, "it was done with the wrong object"),
    Outcome.FAILED: (False, "the cube can no longer be reached"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the judge says about a task; `outcome` is None while it is not decided."""

    task: str
    outcome: bool | None
    detail: str


class SimListener(Protocol):
    """Who is told what the simulated robot measures, from the simulation's thread."""

    def on_clock(self, stamp_ns: int) -> None:
        """The simulated time, once per step."""
        ...

    def on_joints(
        self, stamp_ns: int, positions: NDArray[np.float32], velocities: NDArray[np.float32]
    ) -> None:
        """Joint positions and velocities, float32 [S]; rad, m, rad/s, m/s."""
        ...

    def on_image(self, camera: str, stamp_ns: int, image: NDArray[Any]) -> None:
        """One camera's picture: uint8 [H, W, 3], RGB, or float32 [H, W] in metres."""
        ...

    def on_verdict(self, stamp_ns: int, verdict: Verdict) -> None:
        """A judgement, when it changes."""
        ...

    def on_failure(self, error: BaseException) -> None:
        """The simulation ended against its will."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SimRates:
    """How often things are measured [Hz, simulated time] and how fast time goes by."""

    joints_hz: float = 100.0
    cameras_hz: Mapping[str, float]
    time_scale: float = 1.0


class SimLoop:
    """Runs a `TabletopSim` against the clock and tells a listener what it measures.

    The thread that runs the loop makes the simulator, because OpenGL contexts belong to one
    thread; everybody else talks to it through `reset`, `judge` and `drive`.

    Args:
        make_sim: Builds the simulator, in the loop's thread.
        epoch_ns: Stamp of the first instant, asked when the simulator stands.
        follow_wall: Stamps are the wall clock's, so time that was lost is left out of them.
    """

    def __init__(
        self,
        contract: RobotContract,
        *,
        listener: SimListener,
        rates: SimRates,
        make_sim: Callable[[], TabletopSim],
        seed: int = 0,
        epoch_ns: Callable[[], int],
        follow_wall: bool = True,
        now_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._contract = contract
        self._listener = listener
        self._rates = rates
        self._make_sim = make_sim
        self._seed = seed
        self._now_ns, self._sleep = now_ns, sleep
        self._follow_wall = follow_wall
        self._tick_ns = round(1e9 / rates.joints_hz)
        # stamp = epoch + simulated time; a reset and lost time move the epoch, never backwards.
        self._first_stamp_ns = epoch_ns
        self._epoch_ns = 0
        self._requests: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._due_ns: dict[str, int] = dict.fromkeys(rates.cameras_hz, 0)
        self._monitor: TaskMonitor | None = None
        self._task = ""
        self._decided = False
        self._judge_due_ns = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._stamp_ns = 0
        self.lost_ns = 0
        self.drive = SimDrive(contract, start=np.zeros(len(contract.action_names)))

    # -- for other threads ---------------------------------------------------------------------

    def start(self) -> None:
        """Build the simulator and run in a thread of its own.

        Raises:
            SimError, DependencyError: the simulator cannot be built or cannot draw.
        """
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="sim_robot", daemon=True)
        self._thread.start()
        self._ready.result()

    def close(self) -> None:
        """Stop the thread and free the simulator."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10.0)

    def reset(self, seed: int) -> Future[None]:
        """Set up the scene of `seed`, robot included; done when the result is there."""
        return self.submit(lambda _sim: self._reset(seed))

    def judge(self, task: str) -> Future[None]:
        """Judge `task` from now on; "" ends the judging of the task before."""
        return self.submit(lambda _sim: self._judge(task))

    def stamp_ns(self) -> int:
        """The stamp of the latest simulated instant."""
        return self._stamp_ns

    def submit(self, work: Callable[[TabletopSim], T]) -> Future[T]:
        """Have `work` done in the simulation's thread, before its next step."""
        done: Future[T] = Future()

        def serve() -> None:
            try:
                done.set_result(work(self._sim))
            except Exception as error:
                done.set_exception(error)

        self._requests.put(serve)
        return done

    # -- the loop's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self.open()
            self._ready.set_result(None)
        except BaseException as error:
            self._ready.set_exception(error)
            return
        try:
            while not self._stop.is_set():
                self.catch_up()
                ahead_ns = self._due_wall_ns() - self._now_ns()
                if ahead_ns > 0:
                    self._sleep(ahead_ns / 1e9)
        except Exception as error:
            self._listener.on_failure(error)
        finally:
            self._sim.close()

    def open(self) -> None:
        """Build the simulator in the calling thread and draw every camera once."""
        self._sim = self._make_sim()
        for camera in self._rates.cameras_hz:
            self._draw(camera)
        self._stamp_ns = self._first_stamp_ns()
        self._reset(self._seed)
        self._anchor_wall_ns, self._anchor_stamp_ns = self._now_ns(), self._stamp_ns

    def _due_wall_ns(self) -> int:
        ahead_ns = self._stamp_ns + self._tick_ns - self._anchor_stamp_ns
        return self._anchor_wall_ns + round(ahead_ns / self._rates.time_scale)

    def catch_up(self) -> None:
        """Simulate every tick that is due by the clock."""
        while (lag_ns := self._now_ns() - self._due_wall_ns()) >= 0 and not self._stop.is_set():
            # Asked before every tick: a machine that is slower than the clock never catches up.
            if lag_ns > _MAX_LAG_NS:
                self._let_go_by(lag_ns)
            self.tick()

    def _let_go_by(self, lag_ns: int) -> None:
        self.lost_ns += lag_ns
        if self._follow_wall:
            self._epoch_ns += lag_ns
            self._stamp_ns += lag_ns
        else:
            self._anchor_wall_ns += lag_ns

    def tick(self) -> None:
        """Simulate one period of the joint states and report what is due."""
        self._serve_requests()
        target = self.drive.target(self._stamp_ns + self._tick_ns)
        self._sim.step(target, duration_s=self._tick_ns / 1e9)
        self._stamp_ns = self._epoch_ns + self._sim.time_ns
        self._listener.on_clock(self._stamp_ns)
        self._listener.on_joints(self._stamp_ns, self._sim.state(), self._sim.joint_velocities())
        for camera, rate_hz in self._rates.cameras_hz.items():
            if self._stamp_ns >= self._due_ns[camera]:
                period_ns = round(1e9 / rate_hz)
                missed = self._stamp_ns - self._due_ns[camera] > period_ns
                due_ns = self._stamp_ns if missed else self._due_ns[camera]
                self._due_ns[camera] = due_ns + period_ns
                self._listener.on_image(camera, self._stamp_ns, self._draw(camera))
        self._look_at_task()

    def _draw(self, camera: str) -> NDArray[Any]:
        if self._contract.camera(camera).kind == "depth":
            return self._sim.render_depth(camera.removesuffix(DEPTH_SUFFIX))
        return self._sim.render(camera)

    def _serve_requests(self) -> None:
        while not self._requests.empty():
            self._requests.get()()

    def _reset(self, seed: int) -> None:
        if self._task:
            self._judge("")
        self._sim.reset(seed)
        # Time goes on: what was measured before the reset must stay older than what comes after.
        self._epoch_ns = self._stamp_ns - self._sim.time_ns
        self.drive.reset(self._sim.state())

    def _judge(self, text: str) -> None:
        if self._monitor is not None and not self._decided:
            self._say(False, "the task ended before it was done")
        self._task, self._monitor, self._decided = text, None, False
        if not text:
            return
        task = parse_instruction(text)
        if task is None:
            self._say(None, "the simulator has no success test for this instruction")
            return
        self._monitor = TaskMonitor(self._sim, task)
        self._say(None, "")

    def _look_at_task(self) -> None:
        if self._monitor is None or self._decided or self._stamp_ns < self._judge_due_ns:
            return
        self._judge_due_ns = self._stamp_ns + _JUDGE_PERIOD_NS
        outcome = self._monitor.update()
        if outcome in _VERDICTS:
            self._say(*_VERDICTS[outcome])

    def _say(self, outcome: bool | None, detail: str) -> None:
        self._decided = outcome is not None
        verdict = Verdict(task=self._task, outcome=outcome, detail=detail)
        self._listener.on_verdict(self._stamp_ns, verdict)


def check_contract(contract: RobotContract, *, image_size: int) -> None:
    """See that the simulator can be the robot of `contract`.

    Raises:
        SimError: other joints or cameras than the simulated ones, or other pictures.
    """
    if contract.action_names != ACTION_NAMES:
        raise SimError(
            f"robot contract '{contract.name}' has the joints {', '.join(contract.action_names)}; "
            f"the simulator has {', '.join(ACTION_NAMES)}",
            mend="start the simulator with contract:=tabletop",
        )
    for camera in contract.cameras:
        expected = "16UC1" if camera.kind == "depth" else "rgb8"
        if camera.encoding != expected:
            raise SimError(
                f"camera '{camera.name}' sends {camera.encoding} in the contract, the simulator "
                f"{expected}",
                mend=f"set cameras.{camera.name}.encoding: {expected} in the contract",
            )
        if camera.policy and (camera.width, camera.height) != (image_size, image_size):
            raise SimError(
                f"camera '{camera.name}' is {camera.width}x{camera.height} in the contract, "
                f"the simulator draws {image_size}x{image_size}",
                mend="give every policy camera the same square size in the contract",
            )
