"""The cameras of the table-top scene."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import SimError
from fastvla_core.sim.gl import load_mujoco, no_graphics

POLICY_CAMERAS = ("front", "wrist")
SCENE_CAMERA = "scene"
SCENE_WIDTH = 480
SCENE_HEIGHT = 360

# MuJoCo's renderer leaves out groups from 3 on.
_NOT_DRAWN = 3


class CameraSet:
    """Draws a model's cameras; contexts are made when first drawn with."""

    def __init__(self, model: Any, data: Any, *, image_size: int) -> None:
        self._mujoco = load_mujoco()
        self._model = model
        self._data = data
        self._image_size = image_size
        self._renderers: dict[bool, Any] = {}

    def render(self, camera: str) -> NDArray[np.uint8]:
        """Draw one camera, uint8 [H, W, 3], RGB.

        Raises:
            SimError: there is no such camera, or no OpenGL context can be made.
        """
        return self._look(camera).render()

    def render_depth(self, camera: str) -> NDArray[np.float32]:
        """How far away what a camera sees is along its axis [m], float32 [H, W].

        Raises:
            SimError: as `render`.
        """
        renderer = self._look(camera)
        renderer.enable_depth_rendering()
        try:
            return renderer.render()
        finally:
            renderer.disable_depth_rendering()

    def _look(self, camera: str) -> Any:
        """The renderer, with the scene as that camera has it before it."""
        if camera not in (*POLICY_CAMERAS, SCENE_CAMERA):
            raise SimError(
                f"no camera '{camera}'", mend=f"one of {', '.join(POLICY_CAMERAS)}, {SCENE_CAMERA}"
            )
        for_people = camera == SCENE_CAMERA
        renderer = self._renderer(for_people)
        # The scene camera also draws shadows, of things beside the picture too.
        with contextlib.nullcontext() if for_people else self._only_what_is_in_view(camera):
            renderer.update_scene(self._data, camera=camera)
        flags = renderer.scene.flags
        flags[self._mujoco.mjtRndFlag.mjRND_SHADOW] = for_people
        flags[self._mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        return renderer

    @contextlib.contextmanager
    def _only_what_is_in_view(self, camera: str) -> Iterator[None]:
        """Leaves out what is wholly outside of the picture: the wrist camera sees half the scene.

        MuJoCo draws every geom, and a software OpenGL lights each of its corners.
        """
        model, data = self._model, self._data
        own = model.camera(camera).id
        turned = data.cam_xmat[own].reshape(3, 3)
        # Right, up and back, as the camera has it.
        right, up, back = ((data.geom_xpos - data.cam_xpos[own]) @ turned).T
        half = np.deg2rad(model.cam_fovy[own]) / 2
        # How far a centre is outside of the nearest of the five planes; planes have no radius.
        beside = np.maximum(np.abs(right), np.abs(up)) * np.cos(half) + back * np.sin(half)
        radius = np.where(model.geom_rbound > 0, model.geom_rbound, np.inf)
        groups = model.geom_group.copy()
        model.geom_group[np.maximum(beside, back) > radius] = _NOT_DRAWN
        try:
            yield
        finally:
            model.geom_group[:] = groups

    def _renderer(self, for_people: bool) -> Any:
        if for_people not in self._renderers:
            # Shadows and multisampling are fixed when the context is made; they cost the policy's
            # cameras two thirds of their speed.
            quality = self._model.vis.quality
            quality.offsamples = 4 if for_people else 0
            quality.shadowsize = 1024 if for_people else 0
            width, height = (
                (SCENE_WIDTH, SCENE_HEIGHT) if for_people else (self._image_size, self._image_size)
            )
            self._renderers[for_people] = self._make_renderer(width, height)
        return self._renderers[for_people]

    def _make_renderer(self, width: int, height: int) -> Any:
        offscreen = self._model.vis.global_
        offscreen.offwidth, offscreen.offheight = width, height
        try:
            return self._mujoco.Renderer(self._model, height, width, max_geom=200)
        # What a missing driver raises depends on the backend and on PyOpenGL's version.
        except Exception as error:
            raise no_graphics(error) from error

    def close(self) -> None:
        """Free the OpenGL contexts; the next `render` makes new ones."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
