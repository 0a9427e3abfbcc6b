"""The simulated robot on its table: physics, sensors and cameras."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import SimError
from fastvla_core.sim.gl import load_mujoco
from fastvla_core.sim.kinematics import solve_gripper_down
from fastvla_core.sim.layout import CUBE_HALF_M, sample_layout
from fastvla_core.sim.randomise import Appearance
from fastvla_core.sim.rendering import CameraSet
from fastvla_core.sim.tasks import COLOURS, Colour

ACTION_NAMES = ("joint1", "joint2", "joint3", "joint4", "joint5", "joint6", "gripper")
OPEN_M = 0.042

_STEP_NS = 4_000_000
_SETTLE_STEPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneObject:
    """A thing on the table.

    Attributes:
        name: 'red cube', 'green cube', 'blue cube' or 'bowl'.
        colour: Colour of a cube, None for the bowl.
        position: Centre of a cube, or the middle of the bowl's underside [m], float64 [3].
        rotation: Rotation matrix, float64 [3, 3].
        speed: Speed of the centre [m/s].
    """

    name: str
    colour: Colour | None
    position: NDArray[np.float64]
    rotation: NDArray[np.float64]
    speed: float


class TabletopSim:
    """A 6-joint arm with a gripper, three cubes and a bowl; the layout and the look follow a seed.

    One instance belongs to one thread: the OpenGL contexts do not travel between threads.

    Args:
        image_size: Width and height of the policy's cameras [pixel].

    Raises:
        DependencyError: MuJoCo is not installed.
        SimError: no OpenGL library can be loaded.
    """

    def __init__(self, *, image_size: int = 96) -> None:
        self._mujoco = load_mujoco()
        self._model: Any = self._mujoco.MjModel.from_xml_path(
            str(Path(__file__).with_name("scene.xml"))
        )
        self._data: Any = self._mujoco.MjData(self._model)
        self._appearance = Appearance(self._model)
        self._cameras = CameraSet(self._model, self._data, image_size=image_size)
        self._tcp: int = self._model.site("tcp").id
        self._bodies: dict[str, int] = {n: self._model.body(n).id for n in (*COLOURS, "bowl")}
        fingers = [self._model.body(n).id for n in ("finger_left", "finger_right")]
        self._fingers = set(np.flatnonzero(np.isin(self._model.geom_bodyid, fingers)).tolist())
        driven = self._model.actuator_trnid[:7, 0]
        self._limits: NDArray[np.float64] = self._model.jnt_range[driven].copy()
        self._time_ns = 0
        self._ramp_start: NDArray[np.float64] = np.zeros(7)
        self._ramp_end: NDArray[np.float64] = np.zeros(7)
        self._ramp_step = self._ramp_steps = 0
        self._owed_ns = 0
        self.reset(0)

    def reset(self, seed: int, *, randomise: bool = True) -> None:
        """Lay out the scene of `seed`; without `randomise` it keeps the look of the scene file."""
        rng = np.random.default_rng([seed, 1])
        self._mujoco.mj_resetData(self._model, self._data)
        layout = sample_layout(rng)
        for colour, (x, y, yaw) in zip(COLOURS, layout.cubes, strict=True):
            joint = self._model.body(self._bodies[colour]).jntadr[0]
            start = self._model.jnt_qposadr[joint]
            quaternion = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
            self._data.qpos[start : start + 7] = [x, y, CUBE_HALF_M, *quaternion]
        self._data.mocap_pos[0] = [*layout.bowl, 0.0]
        tool = np.array([0.265, 0.0, 0.23]) + rng.uniform(-1, 1, 3) * [0.035, 0.08, 0.03]
        self._place_arm(np.append(solve_gripper_down(tool, yaw=0.0), OPEN_M))
        if randomise:
            self._appearance.randomise(np.random.default_rng([seed, 2]))
        else:
            self._appearance.restore()
        self._mujoco.mj_step(self._model, self._data, _SETTLE_STEPS)
        self._refresh_poses()
        self._time_ns = self._owed_ns = 0

    def _place_arm(self, target: NDArray[np.float64]) -> None:
        self._data.qpos[:8] = [*target, target[6]]
        self._data.ctrl[:8] = [*target, target[6]]
        self._ramp_start = self._ramp_end = target
        self._ramp_step = self._ramp_steps = 0
        self._mujoco.mj_forward(self._model, self._data)

    def close(self) -> None:
        """Free the OpenGL contexts."""
        self._cameras.close()

    def step(self, target: NDArray[np.floating], *, duration_s: float = 0.1) -> None:
        """Move the set point linearly to `target` while `duration_s` of simulated time goes by.

        Args:
            target: Six joint angles [rad] and the opening of one finger [m], [7]; clipped at the
                joint limits.

        Raises:
            SimError: the target has the wrong shape or is not finite.
        """
        self.set_target(target, over_s=duration_s)
        self.advance(duration_s)

    def set_target(self, target: NDArray[np.floating], *, over_s: float) -> None:
        """Let the set point go linearly from where it is now to `target` within `over_s`.

        Raises:
            SimError: the target has the wrong shape or is not finite.
        """
        wanted = np.asarray(target, dtype=np.float64)
        if wanted.shape != (len(ACTION_NAMES),) or not np.isfinite(wanted).all():
            raise SimError(
                f"target {np.array2string(wanted, precision=3)} is not {len(ACTION_NAMES)} finite "
                "numbers",
                mend="give six joint angles [rad] and the finger opening [m]",
            )
        self._ramp_start = self._data.ctrl[:7].copy()
        self._ramp_end = np.clip(wanted, self._limits[:, 0], self._limits[:, 1])
        self._ramp_step = 0
        self._ramp_steps = max(1, round(over_s * 1e9 / _STEP_NS))

    def advance(self, duration_s: float) -> None:
        """Simulate `duration_s`; what is left of a physics step is made up for by the next call."""
        self._owed_ns += round(duration_s * 1e9)
        while self._owed_ns >= _STEP_NS:
            self._owed_ns -= _STEP_NS
            self._time_ns += _STEP_NS
            self._follow_ramp()
            self._mujoco.mj_step(self._model, self._data)
        self._refresh_poses()

    def _refresh_poses(self) -> None:
        # A physics step leaves body poses as they were before it; pictures and joints must agree.
        self._mujoco.mj_kinematics(self._model, self._data)
        self._mujoco.mj_camlight(self._model, self._data)

    def _follow_ramp(self) -> None:
        if self._ramp_step < self._ramp_steps:
            self._ramp_step += 1
            share = self._ramp_step / self._ramp_steps
            setpoint = self._ramp_start + share * (self._ramp_end - self._ramp_start)
            self._data.ctrl[:7] = setpoint
            self._data.ctrl[7] = setpoint[6]

    @property
    def limits(self) -> NDArray[np.float64]:
        """Lower and upper limit of every target, float64 [7, 2]; rad and m."""
        return self._limits.copy()

    @property
    def time_ns(self) -> int:
        """Simulated time since the reset [ns], a multiple of the physics step."""
        return self._time_ns

    def state(self) -> NDArray[np.float32]:
        """Six joint angles [rad] and the mean opening of the fingers [m], float32 [7]."""
        return np.append(self._data.qpos[:6], self.finger_gap).astype(np.float32)

    def joint_velocities(self) -> NDArray[np.float32]:
        """Velocities in the order of `state`, float32 [7]; rad/s and m/s."""
        return np.append(self._data.qvel[:6], self._data.qvel[6:8].mean()).astype(np.float32)

    @property
    def finger_gap(self) -> float:
        """Mean opening of the two fingers [m]: 0 closed, 0.02 around a cube, 0.042 open."""
        return float(self._data.qpos[6:8].mean())

    def render(self, camera: str) -> NDArray[np.uint8]:
        """What a camera sees, uint8 [H, W, 3], RGB.

        Args:
            camera: 'front' or 'wrist' (the policy's), or 'scene' (480x360, with shadows).

        Raises:
            SimError: there is no such camera, or no OpenGL context can be made.
        """
        return self._cameras.render(camera)

    def render_depth(self, camera: str) -> NDArray[np.float32]:
        """How far away what a camera sees is along its axis [m], float32 [H, W].

        Raises:
            SimError: as `render`.
        """
        return self._cameras.render_depth(camera)

    @property
    def joints(self) -> NDArray[np.float64]:
        """The six joint angles in full precision [rad], float64 [6]."""
        return self._data.qpos[:6].copy()

    @property
    def tcp(self) -> NDArray[np.float64]:
        """The tool centre point between the finger tips [m], float64 [3]."""
        return self._data.site_xpos[self._tcp].copy()

    @property
    def objects(self) -> tuple[SceneObject, ...]:
        """The three cubes and the bowl."""
        return (*(self.cube(colour) for colour in COLOURS), self.bowl)

    @property
    def bowl(self) -> SceneObject:
        """The bowl."""
        return self._object("bowl", colour=None, speed=0.0)

    def cube(self, colour: Colour) -> SceneObject:
        """The cube of a colour."""
        body = self._model.body(self._bodies[colour])
        start = self._model.jnt_dofadr[body.jntadr[0]]
        speed = float(np.linalg.norm(self._data.qvel[start : start + 3]))
        return self._object(colour, colour=colour, speed=speed)

    def _object(self, body_name: str, *, colour: Colour | None, speed: float) -> SceneObject:
        body = self._bodies[body_name]
        return SceneObject(
            name="bowl" if colour is None else f"{colour} cube",
            colour=colour,
            position=self._data.xpos[body].copy(),
            rotation=self._data.xmat[body].reshape(3, 3).copy(),
            speed=speed,
        )

    def is_touched(self, colour: Colour) -> bool:
        """Whether a finger touches the cube of a colour."""
        cube = self._model.geom(colour).id
        pairs = self._data.contact.geom[: self._data.ncon]
        return any(cube in pair and not self._fingers.isdisjoint(pair) for pair in pairs.tolist())
