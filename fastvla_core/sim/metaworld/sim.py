"""Meta-World's Sawyer as a robot of ours: two cameras, the hand's position, targets for the hand.

The package is installed by the extra `metaworld`. Source: Meta-World, arXiv:1910.10897.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import DependencyError, SimError
from fastvla_core.sim.gl import load_mujoco, no_graphics
from fastvla_core.sim.metaworld.tasks import MetaWorldTask

STATE_NAMES = ("hand_x", "hand_y", "hand_z", "gripper")
CAMERAS = {"front": "corner4", "hand": "gripperPOV"}
"""The policy's cameras, and what Meta-World calls them."""
IMAGE_SIZE = 96
OPEN_M = 0.05

# Meta-World's own numbers: a step is five of MuJoCo's 2.5 ms, an action of 1 moves the hand's set
# point by 1 cm per axis, an episode has 500 steps.
STEP_S = 0.0125
STEP_M = 0.01
MAX_STEPS = 500


class MetaWorldSim:
    """One task of Meta-World; the places of its objects and of its goal follow a seed.

    One instance belongs to one thread: the OpenGL context does not travel between threads.

    Raises:
        DependencyError: Meta-World is not installed.
        SimError: no OpenGL library can be loaded.
    """

    def __init__(self, task: MetaWorldTask) -> None:
        self.task = task
        self._mujoco = load_mujoco()
        self._env: Any = _make(task)
        self._renderer: Any = None
        self._seen: NDArray[np.float64] = np.zeros(39)
        self._steps = 0
        self._effort = -1.0
        self._succeeded = False

    def reset(self, seed: int) -> None:
        """Lay out the scene of `seed`."""
        self._env.seed(seed)
        self._env.reset()
        # Meta-World moves bodies after its last physics step: pictures and positions must agree.
        self._mujoco.mj_forward(self._env.model, self._env.data)
        self._env._prev_obs = self._env._get_curr_obs_combined_no_goal()
        self._seen = self._env._get_obs()
        self._steps = 0
        self._effort = -1.0
        self._succeeded = False

    def close(self) -> None:
        """Free the OpenGL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._env.close()

    def step(self, target: NDArray[np.floating], *, duration_s: float) -> None:
        """Move the hand's set point linearly to `target` while `duration_s` goes by.

        Meta-World moves it by 1 cm per axis and step at most: what is farther is not reached.
        Nothing moves any more once an episode's time is up.

        Args:
            target: Position of the hand's set point and opening of one finger [m], [4].

        Raises:
            SimError: the target has the wrong shape or is not finite.
        """
        wanted = np.asarray(target, dtype=np.float64)
        if wanted.shape != (len(STATE_NAMES),) or not np.isfinite(wanted).all():
            raise SimError(
                f"target {np.array2string(wanted, precision=3)} is not {len(STATE_NAMES)} finite "
                "numbers",
                mend="give the hand's position and the opening of one finger [m]",
            )
        for left in range(round(duration_s / STEP_S), 0, -1):
            if self.time_is_up:
                return
            move = (wanted[:3] - self.set_point) / (STEP_M * left)
            self._effort += (_effort(wanted[3]) - self._effort) / left
            action = np.append(np.clip(move, -1.0, 1.0), self._effort)
            self._seen, _, _, _, info = self._env.step(action)
            self._steps += 1
            self._succeeded |= bool(info["success"])

    def begin_anew(self) -> None:
        """Begin an episode where the last one stands: no success yet, and all of its time."""
        self._env.curr_path_length = 0
        self._succeeded = False

    @property
    def time_is_up(self) -> bool:
        """Whether the episode has had all of Meta-World's steps."""
        return self._env.curr_path_length >= MAX_STEPS

    @property
    def succeeded(self) -> bool:
        """Whether Meta-World has said `success` in this episode."""
        return self._succeeded

    @property
    def time_ns(self) -> int:
        """Simulated time since the reset [ns]."""
        return round(self._steps * STEP_S * 1e9)

    @property
    def set_point(self) -> NDArray[np.float64]:
        """Where the hand is being pulled to [m], float64 [3]."""
        return self._env.data.mocap_pos[0].copy()

    def state(self) -> NDArray[np.float32]:
        """Measured position of the hand and opening of one finger [m], float32 [4]."""
        body = self._env.data.body
        gap = np.linalg.norm(body("rightclaw").xpos - body("leftclaw").xpos)
        return np.append(body("hand").xpos, gap / 2).astype(np.float32)

    def render(self, camera: str) -> NDArray[np.uint8]:
        """What one of `CAMERAS` sees, uint8 [H, W, 3], RGB.

        Raises:
            SimError: there is no such camera, or no OpenGL context can be made.
        """
        if camera not in CAMERAS:
            raise SimError(f"no camera '{camera}'", mend=f"one of {', '.join(CAMERAS)}")
        if self._renderer is None:
            self._renderer = self._make_renderer()
        self._renderer.update_scene(self._env.data, camera=CAMERAS[camera])
        flags = self._renderer.scene.flags
        flags[self._mujoco.mjtRndFlag.mjRND_SHADOW] = False
        flags[self._mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        pixels = self._renderer.render()
        # Meta-World's corner cameras are mounted upside down.
        return pixels[::-1, ::-1].copy() if camera == "front" else pixels

    def _make_renderer(self) -> Any:
        model = self._env.model
        # As on the table-top: shadows and multisampling cost two thirds of the speed.
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0
        model.vis.global_.offwidth = model.vis.global_.offheight = IMAGE_SIZE
        try:
            return self._mujoco.Renderer(model, IMAGE_SIZE, IMAGE_SIZE)
        # What a missing driver raises depends on the backend and on PyOpenGL's version.
        except Exception as error:
            raise no_graphics(error) from error

    def preview(
        self, act: Callable[[NDArray[np.float64]], NDArray[np.floating]], *, duration_s: float
    ) -> NDArray[np.float64]:
        """Where Meta-World's own actions would bring the set point; nothing has moved afterwards.

        Args:
            act: From Meta-World's full observation to its action, both as it documents them.
        Returns:
            The target whose `step` comes to the same place, float64 [4].
        """
        env, mujoco = self._env, self._mujoco
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        before = np.empty(mujoco.mj_stateSize(env.model, kind))
        mujoco.mj_getState(env.model, env.data, before, kind)
        previous, seen, action = env._prev_obs, self._seen, np.zeros(4)
        for _ in range(round(duration_s / STEP_S)):
            action = np.clip(act(seen), -1.0, 1.0)
            env.set_xyz_action(action[:3])
            env.do_simulation([action[3], -action[3]], env.frame_skip)
            mujoco.mj_forward(env.model, env.data)
            space = env.sawyer_observation_space
            seen = np.clip(env._get_obs(), space.low, space.high)
        target = np.append(self.set_point, _opening(action[3]))
        mujoco.mj_setState(env.model, env.data, before, kind)
        mujoco.mj_forward(env.model, env.data)
        env._prev_obs = previous
        return target


def load_metaworld(module: str) -> Any:
    """A module of the package `metaworld`.

    Raises:
        DependencyError: it, or something that it needs, is not installed.
    """
    load_mujoco()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        raise DependencyError(
            f"Meta-World's tasks need '{missing}', which is not installed",
            mend="pip install 'fastvla[metaworld]', best into an environment of its own: it brings "
            "MuJoCo 3.3.0",
        ) from error


def _make(task: MetaWorldTask) -> Any:
    kind = load_metaworld("metaworld.env_dict").ALL_V3_ENVIRONMENTS[task.name]
    env = kind()
    # As its own goal-observable variants do it; the scripted experts need the goal. Places are
    # drawn anew at each reset, from the seed.
    env._partially_observable = False
    env._freeze_rand_vec = False
    env.seeded_rand_vec = True
    env._set_task_called = True
    del env.sawyer_observation_space
    return env


def _effort(opening: float) -> float:
    """Meta-World's effort of the fingers, 1 to close, for a wanted opening of one finger [m]."""
    return float(np.clip(1.0 - 2.0 * opening / OPEN_M, -1.0, 1.0))


def _opening(effort: float) -> float:
    return OPEN_M * (1.0 - effort) / 2.0
