"""Random light, colours and camera poses: the same scene never looks the same twice."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastvla_core.sim.tasks import COLOURS

_RANDOM_CAMERAS = {"front": 0.02, "wrist": 0.004}
_FIELDS = ("cam_pos", "cam_quat", "cam_fovy", "geom_rgba", "light_dir", "light_diffuse")


class Appearance:
    """Changes how a MuJoCo model looks, and can bring back how it looked at first."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._original = {name: getattr(model, name).copy() for name in _FIELDS}
        self._ambient = model.vis.headlight.ambient.copy()
        self._diffuse = model.vis.headlight.diffuse.copy()
        self._cubes = [model.geom(name).id for name in COLOURS]
        self._table = model.geom("table").id
        owners = [model.body(int(body)).name for body in model.geom_bodyid]
        self._bowl = [i for i, owner in enumerate(owners) if owner == "bowl"]
        scenery = {"world", "bowl", *COLOURS}
        robot = [i for i, owner in enumerate(owners) if owner not in scenery]
        self._robot = _by_colour(model, robot)

    def restore(self) -> None:
        """Bring back the look of the scene file."""
        for name, value in self._original.items():
            getattr(self._model, name)[:] = value
        self._model.vis.headlight.ambient[:] = self._ambient
        self._model.vis.headlight.diffuse[:] = self._diffuse

    def randomise(self, rng: np.random.Generator) -> None:
        """Draw a new look; starts from the look of the scene file."""
        self.restore()
        self._randomise_cameras(rng)
        self._randomise_colours(rng)
        model = self._model
        model.light_dir[:] += rng.uniform(-0.4, 0.4, model.light_dir.shape)
        model.light_dir[:] /= np.linalg.norm(model.light_dir, axis=1, keepdims=True)
        model.light_diffuse[:] *= rng.uniform(0.4, 1.2)
        model.vis.headlight.diffuse[:] = rng.uniform(0.2, 0.6)
        model.vis.headlight.ambient[:] = rng.uniform(0.25, 0.5)

    def _randomise_cameras(self, rng: np.random.Generator) -> None:
        model = self._model
        for name, shift_m in _RANDOM_CAMERAS.items():
            camera = model.camera(name).id
            model.cam_pos[camera] += rng.uniform(-shift_m, shift_m, 3)
            model.cam_quat[camera] += rng.uniform(-0.012, 0.012, 4)
            model.cam_quat[camera] /= np.linalg.norm(model.cam_quat[camera])
            model.cam_fovy[camera] += rng.uniform(-1.0, 1.0)

    def _randomise_colours(self, rng: np.random.Generator) -> None:
        rgba = self._model.geom_rgba
        for cube in self._cubes:
            rgba[cube, :3] += rng.uniform(-0.1, 0.1, 3)
        rgba[self._table, :3] = rng.uniform(0.2, 0.85) + rng.uniform(-0.1, 0.1, 3)
        rgba[self._bowl, :3] = rng.uniform(0.7, 1.0) + rng.uniform(-0.08, 0.08, 3)
        for part in self._robot:
            rgba[part, :3] += rng.uniform(-0.15, 0.15) + rng.uniform(-0.08, 0.08, 3)
        np.clip(rgba, 0.0, 1.0, out=rgba)


def _by_colour(model: Any, geoms: list[int]) -> list[list[int]]:
    """Geoms of one colour share one random tint: the robot stays a robot, not a patchwork."""
    groups: dict[tuple[float, ...], list[int]] = {}
    for geom in geoms:
        groups.setdefault(tuple(model.geom_rgba[geom].tolist()), []).append(geom)
    return list(groups.values())
